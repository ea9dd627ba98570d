package pool_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/pool"
)

// step is one action; which of the calls, dials or connections there are it
// concerns is chosen by its numbers.
type step struct {
	do     string
	a, b   int
	limits pool.Limits
}

func (s step) String() string {
	if s.do == "limits" {
		return fmt.Sprintf("%s%+v", s.do, s.limits)
	}
	return fmt.Sprintf("%s(%d,%d)", s.do, s.a, s.b)
}

// GoString is how rapid prints it.
func (s step) GoString() string { return s.String() }

func drawStep(rt *rapid.T) step {
	s := step{
		do: rapid.SampledFrom([]string{
			"get", "get", "get", "get", "get", "get", "own", "proven", "avoid", "partition", "burst",
			"end", "end", "end", "answered", "misdirect", "cancel", "dialed", "dialed", "dialed", "dialed", "failed", "http1",
			"settings", "settings", "goaway", "closed", "origin", "refuse", "grant",
			"limits", "time", "time", "time", "move", "certificate", "resolver", "closing", "closeIdle",
			"race", "race", "late", "unusable", "explain", "crowd", "stall",
		}).Draw(rt, "do"),
		a: rapid.IntRange(0, 11).Draw(rt, "a"),
		b: rapid.IntRange(0, 11).Draw(rt, "b"),
	}
	if s.do == "limits" {
		s.limits = drawLimits(rt, "to")
	}
	return s
}

// of chooses one of s; ok is false if there is none.
func of[T any](s []T, i int) (v T, ok bool) {
	if len(s) == 0 {
		return v, false
	}
	return s[i%len(s)], true
}

func (m *model) heldDials() (ds []*fakeDial) {
	m.rig.mu.Lock()
	defer m.rig.mu.Unlock()
	for _, d := range m.dials {
		if !d.ended && len(d.outcome) == 0 {
			ds = append(ds, d)
		}
	}
	return ds
}

// live returns the connections whose end has not been told.
func (m *model) live() (cs []*fakeConn) {
	for _, c := range m.open() {
		if !m.factsOf(c).told {
			cs = append(cs, c)
		}
	}
	return cs
}

// served returns the calls that have a stream.
func (m *model) served() (cs []*call) {
	for _, c := range m.calls {
		if c.returned() && c.err == nil {
			cs = append(cs, c)
		}
	}
	return cs
}

func (m *model) do(s step) {
	q := request(m.hosts[s.a%len(m.hosts)])
	switch s.do {
	case "get":
		m.begin(q)
	case "own":
		q.Own = true
		m.begin(q)
	case "proven":
		q.ProvenOnly = true
		m.begin(q)
	case "avoid":
		q.Own = s.b%2 == 0
		q.Avoid = m.lastID
		m.begin(q)
	case "partition":
		q.Partition = "p"
		q.Explain = s.b%2 == 0
		m.begin(q)
	case "burst":
		for i := range m.hosts {
			q.Host = m.hosts[i]
			m.begin(q)
		}
	case "end":
		if c, ok := of(m.served(), s.a); ok {
			m.end(c)
		}
	case "answered":
		if c, ok := of(m.served(), s.a); ok {
			c.lease.Answered()
			if f := m.factsOf(c.conn()); !f.excluded[c.Host] {
				f.proven[c.Host] = true
			}
		}
	case "misdirect":
		if c, ok := of(m.served(), s.a); ok {
			m.misdirected(c)
		}
	case "cancel":
		if c, ok := of(m.calls, s.a); ok {
			waiting := !c.returned()
			c.cancel(context.Canceled)
			if waiting && !c.returned() {
				m.rec.Errorf("a canceled request for %s goes on", c.Host)
			}
		}
	case "dialed", "failed", "http1":
		if d, ok := of(m.heldDials(), s.a); ok {
			d.finish(map[string]error{"failed": errRefused, "http1": pool.ErrNotHTTP2}[s.do])
		}
	case "settings":
		if c, ok := of(m.live(), s.a); ok {
			c.settings(uint32([]int{0, 1, 2, 5}[s.b%4]))
		}
	case "late":
		m.set(func() { m.noSettings = !m.noSettings })
	case "race":
		m.race(s)
	case "explain":
		m.explained(q)
	case "goaway":
		if c, ok := of(m.live(), s.a); ok {
			m.factsOf(c).told = true
			c.obs.GoAway(1, 0)
		}
	case "unusable":
		if c, ok := of(m.live(), s.a); ok {
			m.factsOf(c).told = true
			c.obs.Unusable()
		}
	case "closed":
		if c, ok := of(m.live(), s.a); ok {
			m.factsOf(c).told = true
			c.die()
		}
	case "origin":
		if c, ok := of(m.live(), s.a); ok {
			f := m.factsOf(c)
			f.fenced = true
			listed := []string{m.hosts[s.b%6], m.hosts[(s.b+2)%6]}
			for _, h := range listed {
				f.origins[h] = true
			}
			c.obs.Origin([]string{"https://" + listed[0], "https://" + listed[1]}, 0)
			for h := range f.proven {
				if !f.origins[h] {
					delete(f.proven, h)
				}
			}
		}
	case "refuse", "grant":
		if c, ok := of(m.live(), s.a); ok {
			c.setRefuse(s.do == "refuse")
		}
	case "limits":
		m.setLimits(s.limits)
	case "crowd":
		m.crowd(s.b)
	case "stall":
		for _, c := range m.live() {
			c.settings(0)
		}
		time.Sleep(time.Second)
	case "time":
		time.Sleep([]time.Duration{1, time.Millisecond, 60 * time.Millisecond, 300 * time.Millisecond, time.Second, 11 * time.Second, time.Minute, 6 * time.Minute}[s.a%8])
	case "move":
		m.set(func() { m.setDNS(q.Host, []netip.Addr{addr1, addr2, addr3}[s.b%3]) })
	case "certificate":
		m.set(func() { m.rig.certs[q.Host] = m.certs[s.b%len(m.certs)] })
	case "resolver":
		m.set(func() {
			m.lookupTime = []time.Duration{0, 5 * time.Millisecond, 2 * time.Second}[s.a%3]
			m.lookupErr = []error{nil, nil, errNoHost}[s.b%3]
		})
	case "closing":
		m.set(func() { m.closing = []time.Duration{0, 10 * time.Millisecond, 2 * time.Second}[s.a%3] })
	case "closeIdle":
		m.CloseIdle()
	}
	synctest.Wait()
}

// race does several things before the pool's goroutines have done what the
// first of them calls for.
func (m *model) race(s step) {
	served, dials, live := m.served(), m.heldDials(), m.live()
	var waiting []*call
	for _, c := range m.calls {
		if !slices.Contains(served, c) && !c.returned() {
			waiting = append(waiting, c)
		}
	}
	acts := []func(){
		func() {
			if c, ok := of(served, s.a); ok {
				m.end(c)
			}
		},
		func() {
			if d, ok := of(dials, s.a); ok {
				d.finish([]error{nil, nil, errRefused}[s.b%3])
			}
		},
		func() {
			if c, ok := of(waiting, 0); ok {
				c.cancel(context.Canceled)
			}
		},
		func() {
			if c, ok := of(waiting, s.b); ok {
				c.cancel(context.Canceled)
			}
		},
		func() {
			if c, ok := of(live, s.b); ok {
				c.settings(uint32(s.a % 4))
			}
		},
		func() {
			if c, ok := of(live, s.a+s.b); ok && s.b%4 == 0 {
				m.factsOf(c).told = true
				c.die()
			}
		},
		func() {
			if s.a%4 == 0 {
				m.CloseIdle()
			}
		},
	}
	for i := range acts {
		acts[(i*3+s.a)%len(acts)]()
	}
}

// crowd has more hosts wait for connections than MaxConns permits, until it is the
// turn of one of them.
func (m *model) crowd(most int) {
	l := m.limits
	l.MaxConns = 1 + most%3
	m.setLimits(l)
	for _, h := range m.hosts {
		m.begin(own(h))
	}
	for _, d := range m.heldDials() {
		d.finish(nil)
	}
	time.Sleep(time.Second)
}

func (m *model) begin(q pool.Request) { m.calls = append(m.calls, m.goDo(q)) }

func (m *model) setLimits(l pool.Limits) {
	m.set(func() { m.now = l })
	m.limits = l
	m.noteHosts()
	m.SetLimits(l)
}

func (m *model) end(c *call) {
	c.end()
	m.calls = slices.DeleteFunc(m.calls, func(o *call) bool { return o == c })
}

func (m *model) misdirected(c *call) {
	shared := c.lease.Shared()
	c.lease.Misdirected()
	f := m.factsOf(c.conn())
	m.lastID = c.lease.ID()
	if shared {
		f.excluded[c.Host] = true
		delete(f.proven, c.Host)
		delete(f.origins, c.Host)
		if m.cfg.memory > 0 {
			m.taught[f.key(c)] = time.Now().Add(m.cfg.memory)
			m.set(func() {
				for _, o := range m.facts {
					if o.key(c) == f.key(c) {
						delete(o.proven, c.Host)
					}
				}
			})
		}
	}
	m.end(c)
}

// explained asks what would become of a request, makes it, and looks whether
// the answer was true. Where others wait for the same host, the look-up that is
// made for it may serve them first.
func (m *model) explained(q pool.Request) {
	before := m.lookupsOf(q.Host)
	inLine := slices.ContainsFunc(m.calls, func(c *call) bool { return c.Host == q.Host && !c.returned() })
	d, err := m.Explain(context.Background(), q)
	known := m.lookupsOf(q.Host) == before // if not, the request does not know the addresses that Explain has found
	q.Explain = true
	m.begin(q)
	c := m.calls[len(m.calls)-1]
	if !c.returned() || c.err != nil {
		if err == nil && d.Conn != 0 && !inLine && !m.mayWait() {
			m.rec.Errorf("%s was to go on connection %d (%s), but waits or fails: %v", q.Host, d.Conn, d.Reason, c.err)
		}
		return
	}
	got := c.lease.Decision()
	if inLine || m.mayWait() || got.Reason == coalesce.ReasonDialed || got.Reason == coalesce.ReasonJoined {
		return // what it waited for came meanwhile
	}
	if err != nil || d.Conn != got.Conn || d.Reason != got.Reason || known && !slices.Equal(d.Considered, got.Considered) {
		m.rec.Errorf("%s went on %+v; Explain said %+v, %v", q.Host, got, d, err)
	}
}

// mayWait reports whether a request may be held up by more than what Explain
// looks at: a look-up that takes time, or fails, or an engine that refuses.
func (m *model) mayWait() bool {
	m.rig.mu.Lock()
	slow := m.lookupTime > 0 || m.lookupErr != nil || m.looking > 0
	m.rig.mu.Unlock()
	return slow || slices.ContainsFunc(m.open(), func(c *fakeConn) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.refuse
	})
}

func (m *model) lookupsOf(host string) int {
	m.rig.mu.Lock()
	defer m.rig.mu.Unlock()
	return m.lookups[host]
}
