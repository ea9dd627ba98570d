package pool_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/pool"
)

// TestModel does random things to a pool and looks after each whether anything
// is as it must not be: a limit exceeded, a request that waits without need, a
// connection lost, a host where the rules do not let it be, an index that
// differs from what there is.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		cfg := modelConfig{
			match:    rapid.SampledFrom([]coalesce.Match{coalesce.MatchAddress, coalesce.MatchAddress, coalesce.MatchOrigin, coalesce.MatchCertificate, coalesce.MatchNever}).Draw(rt, "match"),
			joinWait: rapid.SampledFrom([]time.Duration{0, 0, -1}).Draw(rt, "joinWait"),
			ttl:      rapid.SampledFrom([]time.Duration{0, -1, time.Minute}).Draw(rt, "addressTTL"),
			memory:   rapid.SampledFrom([]time.Duration{-1, -1, time.Minute, 10 * time.Minute}).Draw(rt, "misdirectedTTL"),
			allow:    rapid.Bool().Draw(rt, "allow"),
			resolve:  rapid.IntRange(0, 9).Draw(rt, "resolve") > 0,
			limits:   drawLimits(rt, "limits"),
		}
		n := rapid.IntRange(1, 120).Draw(rt, "n") // a slice of free length is short
		steps := rapid.SliceOfN(rapid.Custom(drawStep), n, n).Draw(rt, "steps")
		var err error
		synctest.Test(t, func(*testing.T) { err = runModel(cfg, steps) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

type modelConfig struct {
	match                 coalesce.Match
	joinWait, ttl, memory time.Duration
	allow, resolve        bool
	limits                pool.Limits
}

func drawLimits(rt *rapid.T, label string) pool.Limits {
	few := rapid.SampledFrom([]int{0, 0, 1, 2, 3})
	return pool.Limits{
		MaxConns:          few.Draw(rt, label),
		MaxConnsPerHost:   few.Draw(rt, label),
		MaxIdleConns:      few.Draw(rt, label),
		MaxStreamsPerConn: few.Draw(rt, label),
		MaxHostsPerConn:   few.Draw(rt, label),
		IdleTimeout:       rapid.SampledFrom([]time.Duration{0, time.Second, time.Minute}).Draw(rt, label),
		MaxAge:            rapid.SampledFrom([]time.Duration{0, 0, 2 * time.Minute}).Draw(rt, label),
	}
}

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
			"race", "race", "late", "unusable", "explain",
		}).Draw(rt, "do"),
		a: rapid.IntRange(0, 11).Draw(rt, "a"),
		b: rapid.IntRange(0, 11).Draw(rt, "b"),
	}
	if s.do == "limits" {
		s.limits = drawLimits(rt, "to")
	}
	return s
}

// recorder keeps what the rig complains of.
type recorder struct {
	testing.TB
	mu  sync.Mutex
	err error
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = errors.Join(r.err, fmt.Errorf(format, args...))
}

func (r *recorder) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// model is what the pool's user and its servers know.
type model struct {
	*rig
	cfg    modelConfig
	rec    *recorder
	limits pool.Limits
	now    pool.Limits // guarded by rig.mu: for dials
	hosts  []string
	certs  []*x509.Certificate

	calls    []*call // not yet ended
	seen     map[*call]bool
	answers  map[string][]netip.Addr // all addresses that a host ever had
	facts    map[*fakeConn]*connFacts
	taught   map[string]time.Time // 421s, until when
	mostSeen int                  // highest MaxHostsPerConn so far; 0: none
	lastID   uint64
}

type connFacts struct {
	host     string
	remote   netip.Addr
	cert     *x509.Certificate
	fenced   bool
	origins  map[string]bool
	excluded map[string]bool
	proven   map[string]bool
	told     bool // its end
}

func runModel(cfg modelConfig, steps []step) (err error) {
	m := newModel(cfg)
	defer func() {
		m.Close()
		if err == nil {
			err = m.atEnd()
		}
	}()
	for i, s := range steps {
		m.do(s)
		if err := m.verify(); err != nil {
			return fmt.Errorf("after step %d, %v: %w", i, s, err)
		}
	}
	return m.settle()
}

func newModel(cfg modelConfig) *model {
	m := &model{
		cfg:     cfg,
		limits:  cfg.limits,
		now:     cfg.limits,
		hosts:   names("h%d.test", 6),
		seen:    make(map[*call]bool),
		answers: make(map[string][]netip.Addr),
		facts:   make(map[*fakeConn]*connFacts),
		taught:  make(map[string]time.Time),
		rec:     &recorder{},
	}
	m.noteHosts()
	p := coalesce.Policy{Match: cfg.match, JoinWait: cfg.joinWait, AddressTTL: cfg.ttl}
	if cfg.allow {
		p.Allow = func(c coalesce.Candidate) bool { return !m.vetoes(c.Host, c.ConnHost) }
	}
	m.rig = newRig(m.rec, policy(p), limits(cfg.limits), misdirectedTTL(cfg.memory), func(c *pool.Config) {
		if !cfg.resolve {
			c.Resolve = nil
		}
	})
	m.held = true
	m.maxStreams = 2
	h := m.hosts
	m.certs = []*x509.Certificate{leaf(h[0], h[1], h[2], h[3]), leaf("*.test"), leaf(h[2], h[3], h[4], h[5]), leaf(h...)}
	for i, name := range h {
		m.rig.certs[name] = m.certs[[]int{0, 0, 0, 2, 2, 3}[i]]
		m.setDNS(name, addr1)
	}
	m.setDNS(h[5], addr2)
	m.onDial = m.dialing
	m.shape = m.connected
	return m
}

func (m *model) vetoes(host, connHost string) bool {
	return host == m.hosts[1] && connHost == m.hosts[0]
}

func (m *model) setDNS(host string, addrs ...netip.Addr) {
	m.dns[host] = addrs
	m.answers[host] = append(m.answers[host], addrs...)
}

func (m *model) noteHosts() {
	if n := m.limits.MaxHostsPerConn; n == 0 || m.mostSeen < 0 {
		m.mostSeen = -1
	} else {
		m.mostSeen = max(m.mostSeen, n)
	}
}

// dialing counts connections when one more is dialed.
func (m *model) dialing(context.Context, *fakeDial) {
	m.rig.mu.Lock()
	defer m.rig.mu.Unlock()
	n := 0
	for _, d := range m.dials {
		if !d.ended {
			n++
		}
	}
	for _, c := range m.conns {
		c.mu.Lock()
		if !c.gone {
			n++
		}
		c.mu.Unlock()
	}
	if most := m.now.MaxConns; most > 0 && n > most {
		m.rec.Errorf("P5: connection %d is dialed, MaxConns is %d", n, most)
	}
}

func (m *model) connected(target pool.Target, d *pool.Dialed) {
	remote := d.RemoteAddr.Addr()
	if !m.cfg.resolve {
		remote = addr1
		d.RemoteAddr = netip.AddrPortFrom(remote, uint16(target.Port))
	} else if len(target.Addrs) == 0 {
		m.rec.Errorf("P8: %s is dialed without addresses", target.Host)
	}
	f := &connFacts{
		host:     target.Host,
		remote:   remote,
		origins:  map[string]bool{target.Host: true},
		excluded: make(map[string]bool),
		proven:   make(map[string]bool),
	}
	if d.TLS != nil {
		f.cert = d.TLS.PeerCertificates[0]
	}
	m.rig.mu.Lock()
	defer m.rig.mu.Unlock()
	m.facts[d.Conn.(*fakeConn)] = f
}

func (m *model) factsOf(c *fakeConn) *connFacts {
	m.rig.mu.Lock()
	defer m.rig.mu.Unlock()
	return m.facts[c]
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
		m.Explain(context.Background(), q)
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

// key is under what a 421 is remembered.
func (f *connFacts) key(c *call) string {
	return fmt.Sprint(c.Host, c.Partition, f.remote, string(f.cert.Raw))
}

// verify looks at everything after a step.
func (m *model) verify() error {
	synctest.Wait()
	for _, c := range slices.Clone(m.calls) {
		if !c.returned() {
			continue
		}
		if c.err != nil {
			m.calls = slices.DeleteFunc(m.calls, func(o *call) bool { return o == c })
		} else if !m.seen[c] {
			m.seen[c] = true
			m.judge(c)
		}
	}
	if err := m.rec.failure(); err != nil {
		return err
	}
	if err := m.CheckInvariants(m.hosts...); err != nil {
		return err
	}
	s, open := m.Stats(), m.open()
	served, streams := len(m.served()), 0
	for _, c := range m.conns {
		streams += c.inUse()
	}
	if s.Streams != served || streams != served || s.Waiting != len(m.calls)-served {
		return fmt.Errorf("%d requests have a stream and %d wait; the servers see %d; %+v", served, len(m.calls)-served, streams, s)
	}
	infos := m.Conns()
	if s.Conns != len(open) || len(infos) != len(open) {
		return fmt.Errorf("%d connections are open; %+v", len(open), s)
	}
	for _, info := range infos {
		if m.mostSeen > 0 && len(info.Hosts) > m.mostSeen {
			return fmt.Errorf("C2: hosts %q on connection %d", info.Hosts, info.ID)
		}
	}
	return nil
}

// judge looks at where a request was put, by the rules of the user's manual.
func (m *model) judge(c *call) {
	f := m.factsOf(c.conn())
	complain := func(rule string) {
		m.rec.Errorf("%s: %s (partition %q) is on connection %d of %s", rule, c.Host, c.Partition, c.lease.ID(), f.host)
	}
	if c.lease.ID() == c.Avoid {
		complain("M1")
	}
	if !c.lease.Shared() {
		if f.host != c.Host {
			complain("own")
		}
		return
	}
	covered := c.Host == f.host
	for _, n := range f.cert.DNSNames {
		// No host of the model is covered by the wildcard: it has one label.
		covered = covered || n == c.Host
	}
	listed := f.origins[c.Host]
	switch {
	case c.Own || m.cfg.match == coalesce.MatchNever:
		complain("C9 disabled")
	case !covered:
		complain("C5")
	case f.fenced && !listed:
		complain("C8")
	case f.excluded[c.Host] || time.Now().Before(m.taught[f.key(c)]):
		complain("C10")
	case m.cfg.allow && m.vetoes(c.Host, f.host):
		complain("C11")
	case c.ProvenOnly && !f.proven[c.Host]:
		complain("M6")
	case m.cfg.match == coalesce.MatchCertificate || m.cfg.match == coalesce.MatchOrigin && f.fenced && listed:
	case !slices.Contains(m.answers[c.Host], f.remote):
		complain("C9")
	}
}

// settle lifts all obstacles and demands that every request is then served.
func (m *model) settle() error {
	m.setLimits(pool.Limits{})
	m.set(func() { m.closing, m.lookupTime, m.lookupErr = 0, 0, nil })
	for round := 0; len(m.calls) > 0; round++ {
		if round == 100 {
			return fmt.Errorf("%d requests are never served: %+v", len(m.calls), m.Stats())
		}
		for _, c := range m.open() {
			c.setRefuse(false)
			c.settings(5)
		}
		for _, d := range m.heldDials() {
			d.finish(nil)
		}
		time.Sleep(500 * time.Millisecond)
		if err := m.verify(); err != nil {
			return fmt.Errorf("in the end: %w", err)
		}
		for _, c := range m.served() {
			m.end(c)
		}
	}
	return nil
}

// atEnd looks at what a closed pool has left.
func (m *model) atEnd() error {
	for _, c := range m.calls {
		<-c.done
		if c.err == nil {
			c.end()
		}
	}
	synctest.Wait()
	for _, c := range m.conns {
		if !c.isClosed() || c.closes > 1 {
			return fmt.Errorf("a connection of %s was closed %d times", c.host, c.closes)
		}
	}
	if got := m.Sizes(); got != (pool.Sizes{}) {
		return fmt.Errorf("a closed pool holds %+v", got)
	}
	return m.CheckInvariants()
}
