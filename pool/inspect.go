package pool

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

// Stats returns a snapshot of the pool's counters.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.unlock()
	s := p.stats
	s.Conns = len(p.conns)
	s.Idle = p.idle.len
	s.Waiting = p.waiting.len()
	return s
}

// Conns describes the open connections, oldest first.
func (p *Pool) Conns() []ConnInfo {
	p.mu.Lock()
	defer p.unlock()
	infos := make([]ConnInfo, 0, len(p.conns))
	for _, e := range p.byAgeLocked() {
		infos = append(infos, e.info())
	}
	return infos
}

func (p *Pool) byAgeLocked() []*entry {
	return slices.SortedFunc(maps.Keys(p.conns), func(a, b *entry) int { return cmp.Compare(a.id, b.id) })
}

func (e *entry) info() ConnInfo {
	info := ConnInfo{
		ID:            e.id,
		Host:          e.key.name,
		Port:          e.key.port,
		Partition:     e.key.partition,
		Hosts:         slices.Sorted(maps.Keys(e.hosts)),
		OriginSet:     e.origins.List(),
		OriginSetSeen: e.origins.Seen(),
		Excluded:      slices.Sorted(maps.Keys(e.excluded)),
		Draining:      e.state == stateDraining,
		Streams:       e.streams,
		MaxStreams:    e.limit(),
		Opened:        e.opened,
		LastUsed:      e.lastUsed,
		Requests:      e.requests,
	}
	if e.facts.RemoteAddr.IsValid() {
		info.RemoteAddr = e.facts.RemoteAddr.String()
	}
	if e.cert != nil {
		info.SANs = e.cert.coverage.SANs()
	}
	at, _ := slices.BinarySearch(info.Hosts, e.key.name)
	info.Hosts = slices.Insert(info.Hosts, at, e.key.name)
	return info
}

// verdictsLocked tells what the rules say, for w, of each connection but the one
// that was dialed for it.
func (p *Pool) verdictsLocked(w *waiter) []coalesce.Verdict {
	addrs, _ := p.addressesLocked(w.key(), p.evidenceAge())
	ask := w.ask(addrs)
	now := time.Now()
	vs := make([]coalesce.Verdict, 0, len(p.conns))
	for _, e := range p.byAgeLocked() {
		if e == w.came && e.key == w.host.key {
			continue
		}
		r := p.verdictLocked(e, w.host, &ask, now)
		if said := w.answers[e.id]; r == coalesce.ReasonShared && said != "" {
			r = said
		}
		if (r == coalesce.ReasonOwn || r == coalesce.ReasonShared) && !e.free() {
			r = coalesce.ReasonFull
		}
		vs = append(vs, coalesce.Verdict{Conn: e.id, ConnHost: e.key.name, Reason: r})
	}
	return vs
}

// verdictLocked is judgeLocked for display: a host that is placed needs no
// address any more. h may be nil.
func (p *Pool) verdictLocked(e *entry, h *host, ask *coalesce.Request, now time.Time) coalesce.Reason {
	r := p.judgeLocked(e, ask, now)
	if r == coalesce.ReasonAddressMismatch && h != nil && h.placed == e {
		return coalesce.ReasonShared
	}
	return r
}

// Explain tells what Get would do for r now, and why. It opens nothing and
// changes nothing; if the rules need the host's addresses and they are not
// known, it looks them up without keeping the answer.
func (p *Pool) Explain(ctx context.Context, r Request) (coalesce.Decision, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return coalesce.Decision{}, ErrClosed
	}
	addrs, known := p.addressesLocked(r.key(), p.evidenceAge())
	p.mu.Unlock()
	if !known && !r.Own && p.cfg.Resolve != nil && p.cfg.Policy.Match < coalesce.MatchCertificate {
		var err error
		if addrs, err = p.cfg.Resolve(ctx, r.Host); err != nil && p.cfg.Policy.Match != coalesce.MatchOrigin {
			return coalesce.Decision{}, err
		}
	}
	return p.explain(&r, addrs), nil
}

// explained is a connection as Explain met it.
type explained struct {
	e             *entry
	facts         coalesce.Conn
	verdict       coalesce.Verdict
	free, placed  bool
	asksTheCaller bool
}

func (p *Pool) explain(r *Request, addrs []netip.Addr) coalesce.Decision {
	w := waiter{Request: *r}
	ask := w.ask(addrs)
	d := coalesce.Decision{Host: r.Host, Reason: coalesce.ReasonDialed}
	var best *explained
	for _, x := range p.explainedConns(r, &ask) {
		v := &x.verdict
		if v.Reason == coalesce.ReasonShared && x.asksTheCaller {
			v.Reason = p.cfg.Policy.Consult(&x.facts, &ask)
		}
		qualifies := v.Reason == coalesce.ReasonOwn || v.Reason == coalesce.ReasonShared
		if qualifies && !x.free {
			v.Reason, qualifies = coalesce.ReasonFull, false
		}
		d.Considered = append(d.Considered, *v)
		if qualifies && x.betterThan(best) {
			best = &x
		}
	}
	if best != nil {
		d.Conn, d.ConnHost, d.Reason = best.verdict.Conn, best.verdict.ConnHost, best.verdict.Reason
		d.Shared, d.Reused = d.Reason == coalesce.ReasonShared, true
	}
	return d
}

// betterThan orders qualified connections as chooseLocked prefers them; of two
// alike the older, which is asked about first, stays.
func (x *explained) betterThan(o *explained) bool {
	rank := func(x *explained) int {
		switch {
		case x == nil:
			return 0
		case x.verdict.Reason == coalesce.ReasonOwn:
			return 3
		case x.placed:
			return 2
		}
		return 1
	}
	return rank(x) > rank(o)
}

// explainedConns asks the pure rules about every open connection.
func (p *Pool) explainedConns(r *Request, ask *coalesce.Request) []explained {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.hosts[r.key()]
	now := time.Now()
	var xs []explained
	for _, e := range p.byAgeLocked() {
		xs = append(xs, explained{
			e:             e,
			verdict:       coalesce.Verdict{Conn: e.id, ConnHost: e.key.name, Reason: p.verdictLocked(e, h, ask, now)},
			facts:         e.facts,
			free:          e.free(),
			placed:        h != nil && h.placed == e,
			asksTheCaller: e.hosts[r.Host] == nil && p.cfg.Policy.Consults(&e.facts),
		})
	}
	return xs
}
