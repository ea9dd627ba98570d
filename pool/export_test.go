package pool

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

// Sizes is how much of everything a pool holds.
type Sizes struct {
	Certs, Names, Wild, Addrs, Listed int // the index
	Hosts, Dialing                    int
}

func (p *Pool) Sizes() Sizes {
	p.mu.Lock()
	defer p.mu.Unlock()
	x := &p.index
	return Sizes{len(x.certs), len(x.names.first), len(x.wild.first), len(x.addrs.first), len(x.listed), len(p.hosts), len(p.dialing)}
}

// Shown returns how many hosts' certificates are remembered, how many names these
// have, and how many are counted.
func (p *Pool) Shown() (hosts, names, counted int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.shown.lru.Values() {
		names += c.Len()
	}
	return p.shown.lru.Len(), names, p.shown.names
}

// Covering returns the IDs that the index yields for a host at port 443.
func (p *Pool) Covering(host string, addrs ...netip.Addr) []uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.coveringLocked(hostKey{"", host, 443}, addrs)
}

func (p *Pool) coveringLocked(key hostKey, addrs []netip.Addr) []uint64 {
	var ids []uint64
	for conns := range p.index.covering(key, addrs) {
		for _, e := range conns {
			ids = append(ids, e.id)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// scanLocked is what coveringLocked should return.
func (p *Pool) scanLocked(key hostKey, addrs []netip.Addr) []uint64 {
	var ids []uint64
	for e := range p.conns {
		if e.state != stateReady || e.cert == nil || e.key.partition != key.partition || e.key.port != key.port {
			continue
		}
		evident := !p.index.byAddress || slices.Contains(addrs, e.facts.RemoteAddr.Addr())
		if e.cert.coverage.Covers(key.name) && evident || e.origins.Contains(key.name, key.port) && slices.Contains(e.listed, key.name) {
			ids = append(ids, e.id)
		}
	}
	slices.Sort(ids)
	return ids
}

// CheckInvariants returns an error that tells what is wrong with the pool's
// state. It is called when nothing is under way in the pool. The index is
// asked about hosts.
func (p *Pool) CheckInvariants(hosts ...string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	index := func() error { return p.checkIndexLocked(hosts) }
	for _, check := range []func() error{p.checkConnsLocked, p.checkHostsLocked, index, p.checkWaitersLocked, p.checkTurnLocked} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (p *Pool) checkConnsLocked() error {
	streams, idle := 0, 0
	for e := range p.conns {
		streams += e.streams
		switch {
		case e.state != stateReady && e.state != stateDraining:
			return fmt.Errorf("connection %d is among the open ones but %v", e.id, e.state)
		case e.streams < 0:
			return fmt.Errorf("connection %d has %d streams", e.id, e.streams)
		case e.state == stateDraining && e.streams == 0:
			return fmt.Errorf("connection %d drains with nothing under way", e.id)
		case e.inIdle != (e.state == stateReady && e.streams == 0) && (!e.awaited() || e.inIdle):
			return fmt.Errorf("connection %d: idle %t, %v with %d streams", e.id, e.inIdle, e.state, e.streams)
		case e.waiters.len() > 0 && e.freeForOthers(e.waiters.front().seq):
			return fmt.Errorf("connection %d has a free stream and %d in line", e.id, e.waiters.len())
		case e.inIdle && p.limits.IdleTimeout > 0 && e.idleArmed != p.limits.IdleTimeout:
			return fmt.Errorf("connection %d is idle without a timer", e.id)
		case e.state == stateReady && slices.Contains(p.hosts[e.key].own, e) == e.excludes(e.key.name):
			return fmt.Errorf("connection %d is among its host's if it is disowned, or else is not", e.id)
		}
		if e.inIdle {
			idle++
		}
		for w := range e.waiters.all() {
			if w.done || !slices.Contains(w.registered, e) {
				return fmt.Errorf("connection %d: a line with somebody who is not waiting", e.id)
			}
			if e.free(w.seq) && w.host.key == e.key {
				return fmt.Errorf("connection %d has a free stream and its own host in line", e.id)
			}
		}
	}
	if streams > p.stats.Streams { // requests on closed connections are not here
		return fmt.Errorf("Stats.Streams = %d, connections have %d", p.stats.Streams, streams)
	}
	listed := 0
	for e := p.idle.oldest; e != nil; e = e.idleNext {
		if listed++; !e.inIdle || e.idleNext != nil && e.idleNext.idleSince.Before(e.idleSince) {
			return fmt.Errorf("the idle list is out of order at connection %d", e.id)
		}
	}
	if listed != idle || p.idle.len != idle {
		return fmt.Errorf("%d idle connections, %d listed, %d counted", idle, listed, p.idle.len)
	}
	if m := p.limits.MaxIdleConns; m > 0 && idle > m {
		return fmt.Errorf("%d idle connections, MaxIdleConns is %d", idle, m)
	}
	return nil
}

func (p *Pool) checkHostsLocked() error {
	dials, count, waiting := 0, 0, 0
	for key, h := range p.hosts {
		dials += len(h.dials)
		count += h.count
		waiting += h.waiting
		if h.key != key {
			return fmt.Errorf("host %v is kept under %v", h.key, key)
		}
		if len(h.own) == 0 && h.placed == nil && h.count == 0 && h.waiting == 0 && h.lookups == 0 {
			return fmt.Errorf("host %v is kept for nothing", key)
		}
		for _, e := range h.own {
			if _, open := p.conns[e]; !open || e.state != stateReady || e.key != key {
				return fmt.Errorf("host %v has connection %d, which is %v", key, e.id, e.state)
			}
		}
		if e := h.placed; e != nil {
			if _, open := p.conns[e]; !open || e.state != stateReady || e.hosts[key.name] == nil || e.key == key {
				return fmt.Errorf("host %v is placed on connection %d, which is %v", key, e.id, e.state)
			}
			if _, no := e.excluded[key.name]; no {
				return fmt.Errorf("host %v is placed on connection %d, which is misdirected", key, e.id)
			}
		}
		for _, d := range h.dials {
			if d.load < 0 {
				return fmt.Errorf("a dial of %v has load %d", key, d.load)
			}
		}
	}
	if want := dials + len(p.conns) + p.closing; p.total != want || count != want {
		return fmt.Errorf("%d connections counted, %d by host; %d dialing, %d open, %d closing",
			p.total, count, dials, len(p.conns), p.closing)
	}
	if waiting != p.waiting.len() {
		return fmt.Errorf("%d wait, hosts count %d", p.waiting.len(), waiting)
	}
	for b, ds := range p.dialing {
		for _, d := range ds {
			if !slices.Contains(d.host.dials, d) {
				return fmt.Errorf("a dial to %v is kept beyond its end", b.addr)
			}
		}
	}
	return nil
}

// checkWaitersLocked looks for waiters that nothing will wake.
func (p *Pool) checkWaitersLocked() error {
	if len(p.queue) > 0 {
		return fmt.Errorf("%d left in the queue", len(p.queue))
	}
	for w := range p.waiting.all() {
		if w.done || p.hosts[w.key()] != w.host {
			return fmt.Errorf("a waiter for %s is lost", w.Host)
		}
		for _, e := range w.registered {
			if !e.waiters.has(w) || e.state != stateReady {
				return fmt.Errorf("a waiter for %s is in line for connection %d, which does not know", w.Host, e.id)
			}
		}
		if e := p.missedLocked(w); e != nil {
			return fmt.Errorf("a waiter for %s (own %t, proven only %t, avoids %d) misses a free stream of connection %d of %s, limit %d",
				w.Host, w.Own, w.ProvenOnly, w.Avoid, e.id, e.key.name, e.limit())
		}
		if err := p.strandedLocked(w); err != nil {
			return err
		}
	}
	return nil
}

// checkTurnLocked looks for those who are held back, or a timer that runs, for nobody.
func (p *Pool) checkTurnLocked() error {
	t := &p.turn
	switch {
	case (t.alarm.timer != nil) != (p.starved.len() > 0):
		return fmt.Errorf("the turns' timer runs: %t, with %d waiting for room", t.alarm.timer != nil, p.starved.len())
	case t.e != nil && (!p.starved.has(t.w) || t.e.heldAt != t.w.seq || p.roomLocked() > 0):
		return fmt.Errorf("connection %d is held at %d, for nobody, with room for %d", t.e.id, t.e.heldAt, p.roomLocked())
	case t.next != nil && !p.starved.has(t.next):
		return fmt.Errorf("the next room is for somebody who does not wait")
	}
	for e := range p.conns {
		if e.heldAt != 0 && e != t.e {
			return fmt.Errorf("connection %d is held beyond the turn", e.id)
		}
	}
	for w := range p.starved.all() {
		if slices.ContainsFunc(w.host.dials, func(d *dial) bool { return d.room == 0 && d.takes() }) {
			return fmt.Errorf("a waiter for %s wants room beside a dial for it", w.Host)
		}
	}
	return nil
}

// missedLocked returns a connection that could serve w now.
func (p *Pool) missedLocked(w *waiter) *entry {
	if w.consulting {
		return nil
	}
	addrs, _ := p.addressesLocked(w.host.key, p.evidenceAge(), time.Now())
	ask := w.ask(addrs)
	for e := range p.conns {
		if !e.free(w.seq) || e.id == w.Avoid {
			continue
		}
		if e.key == w.host.key {
			return e
		}
		if p.stats.Misdirected > 0 && p.cfg.MisdirectedTTL > 0 {
			continue // what kept w off may have been forgotten since; that wakes nobody
		}
		if w.ownOnly() || !w.provenOn(e) || !e.freeForOthers(w.seq) {
			continue
		}
		if p.judgeLocked(w, e, &ask, time.Now()) == coalesce.ReasonShared {
			return e
		}
	}
	return nil
}

// strandedLocked tells if w waits though a dial is allowed.
func (p *Pool) strandedLocked(w *waiter) error {
	if w.consulting || w.dial != nil || w.lookup != nil {
		return nil
	}
	for _, e := range w.registered {
		if !e.settled || e.limit() == 0 && (!e.stalled || w.stalled() > 1) || e.refused && e.refusals <= refusalPatience {
			return nil // it is waited for
		}
	}
	crowded := w.host.crowded.has(w)
	starved := p.starved.has(w)
	crowd, total := p.limits.MaxConnsPerHost, p.limits.MaxConns
	switch {
	case crowded && crowd > 0 && w.host.count >= crowd:
	case starved && total > 0 && p.total >= total && (p.idle.len == 0 || !p.shortLocked()):
	case len(w.registered) > 0 && time.Now().Before(w.host.holdOff):
	default:
		var line []string
		for _, e := range w.registered {
			line = append(line, fmt.Sprintf("%d of %s: limit %d, %d in use, settled %t, stalled %t, refused %d times (now %t)",
				e.id, e.key.name, e.limit(), e.streams, e.settled, e.stalled, e.refusals, e.refused))
		}
		return fmt.Errorf("a waiter for %s is stranded: crowded %t, starved %t, %d connections and %d idle, %d of its host; in line for %q",
			w.Host, crowded, starved, p.total, p.idle.len, w.host.count, line)
	}
	return nil
}

func (p *Pool) checkIndexLocked(hosts []string) error {
	keys := make(map[hostKey]bool)
	for k := range p.hosts {
		keys[k] = true
	}
	for e := range p.conns {
		for _, h := range hosts {
			keys[e.hostKey(h)] = true
		}
	}
	var every []netip.Addr
	certs := make(map[[32]byte]bool)
	for e := range p.conns {
		every = append(every, e.facts.RemoteAddr.Addr())
		if e.state == stateReady && e.cert != nil {
			certs[e.cert.coverage.Fingerprint()] = true
			if p.index.certs[e.cert.coverage.Fingerprint()] != e.cert {
				return fmt.Errorf("connection %d has a certificate of its own", e.id)
			}
		}
	}
	if len(certs) != len(p.index.certs) {
		return fmt.Errorf("%d certificates in use, %d kept", len(certs), len(p.index.certs))
	}
	for k := range keys {
		for _, addrs := range [][]netip.Addr{nil, every, every[:min(1, len(every))]} {
			if got, want := p.coveringLocked(k, addrs), p.scanLocked(k, addrs); !slices.Equal(got, want) {
				return fmt.Errorf("the index yields %v for %v at %v, a scan %v", got, k, addrs, want)
			}
		}
	}
	return nil
}

// A Finder asks for connections as Get does for a host that is not placed yet,
// but takes no stream.
type Finder struct {
	p *Pool
	w waiter
	h host
}

// NewFinder returns a Finder for a host that resolves to addr.
func (p *Pool) NewFinder(name string, addr netip.Addr) *Finder {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := &Finder{p: p, w: waiter{Request: Request{Host: name, Port: 443}}}
	f.h.key = f.w.key()
	f.w.host = &f.h
	p.answers.Add(f.h.key, answer{[]netip.Addr{addr}, time.Now()})
	return f
}

// Find reports whether there is a connection.
func (f *Finder) Find() bool {
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	return f.p.chooseLocked(&f.w).e != nil
}
