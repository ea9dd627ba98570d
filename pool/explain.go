package pool

import (
	"context"
	"net/netip"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

// consideration is what the rules say of the open connections for one request.
// It is taken under the lock, and completed without it by asking the caller's
// code (C6, C11), where that has not been done on the way.
type consideration struct {
	policy *coalesce.Policy
	ask    coalesce.Request
	conns  []considered // oldest first
}

// considered is one open connection as it was then.
type considered struct {
	facts   coalesce.Conn // Origins must not be read without the lock
	verdict coalesce.Verdict
	unasked bool // the caller's code has yet to be asked about it
	proven  bool // it will do for a request that needs proof (M6)
	free    bool
	placed  bool // the host is placed on it
}

// considerLocked judges every open connection for w, whose host resolved to
// addrs, but the one that was dialed for w.
func (p *Pool) considerLocked(w *waiter, addrs []netip.Addr) *consideration {
	c := &consideration{policy: &p.cfg.Policy, ask: w.ask(addrs)}
	now := time.Now()
	h := p.hosts[w.key()]
	for _, e := range p.byAgeLocked() {
		if e == w.came && e.key == w.key() {
			continue
		}
		x := considered{
			facts:   e.facts,
			verdict: coalesce.Verdict{Conn: e.id, ConnHost: e.key.name, Reason: p.judgeLocked(w, e, &c.ask, now)},
			unasked: p.unaskedLocked(w, e),
			proven:  w.provenOn(e),
			free:    e.freeForOthers(newcomer) || e.key == w.key() && e.free(newcomer),
			placed:  h != nil && h.placed == e,
		}
		switch v := &x.verdict; {
		case v.Reason == coalesce.ReasonOwn && e.id == w.Avoid:
			v.Reason = coalesce.ReasonMisdirected // it has just said so (M1)
		case v.Reason == coalesce.ReasonAddressMismatch && x.placed:
			v.Reason = coalesce.ReasonShared // placed hosts need no address any more
		}
		c.conns = append(c.conns, x)
	}
	return c
}

// verdicts completes the consideration. It must be called without locks held.
func (c *consideration) verdicts() []coalesce.Verdict {
	vs := make([]coalesce.Verdict, len(c.conns))
	for i := range c.conns {
		x := &c.conns[i]
		v := &x.verdict
		if v.Reason == coalesce.ReasonShared && x.unasked {
			v.Reason, x.unasked = c.policy.Consult(&x.facts, &c.ask), false
		}
		switch {
		case v.Reason == coalesce.ReasonShared && !x.proven:
			v.Reason = coalesce.ReasonUnproven
		case (v.Reason == coalesce.ReasonOwn || v.Reason == coalesce.ReasonShared) && !x.free:
			v.Reason = coalesce.ReasonFull
		}
		vs[i] = *v
	}
	return vs
}

// best returns the connection that chooseLocked would prefer, after verdicts
// has been called; nil if none qualifies.
func (c *consideration) best() *considered {
	rank := func(x *considered) int {
		switch {
		case x.verdict.Reason == coalesce.ReasonOwn:
			return 3
		case x.verdict.Reason != coalesce.ReasonShared:
			return 0
		case x.placed:
			return 2
		}
		return 1
	}
	var best *considered
	for i := range c.conns {
		x := &c.conns[i]
		if rank(x) > 0 && (best == nil || rank(x) > rank(best)) {
			best = x
		}
	}
	return best
}

// Explain tells what Get would do for r now, and why. It opens nothing and
// changes nothing; if the rules need the host's addresses and they are not
// known, it looks them up without keeping the answer. It fails with ErrClosed,
// or, where a connection would have to be dialed, with the error of that
// look-up.
func (p *Pool) Explain(ctx context.Context, r Request) (coalesce.Decision, error) {
	p.mu.Lock()
	closed := p.closed
	addrs, known := p.addressesLocked(r.key(), p.evidenceAge(), time.Now())
	p.mu.Unlock()
	if closed {
		return coalesce.Decision{}, ErrClosed
	}
	var err error
	if !known && !r.ownOnly() && p.cfg.Resolve != nil && p.cfg.Policy.Match < coalesce.MatchCertificate {
		addrs, err = p.cfg.Resolve(ctx, r.Host)
		addrs = canonicalAddrs(addrs)
	}
	d := p.explain(&r, addrs)
	if err != nil && d.Reason == coalesce.ReasonDialed {
		return coalesce.Decision{}, err
	}
	return d, nil
}

func (p *Pool) explain(r *Request, addrs []netip.Addr) coalesce.Decision {
	w := &waiter{Request: *r}
	p.mu.Lock()
	c := p.considerLocked(w, addrs)
	joins := p.wouldJoinLocked(w, addrs)
	p.mu.Unlock()
	d := coalesce.Decision{Host: r.Host, Reason: coalesce.ReasonDialed, Considered: c.verdicts()}
	switch x := c.best(); {
	case x != nil:
		d.Conn, d.ConnHost, d.Reason = x.verdict.Conn, x.verdict.ConnHost, x.verdict.Reason
		d.Shared, d.Reused = d.Reason == coalesce.ReasonShared, true
	case joins != nil:
		d.ConnHost, d.Reason, d.Shared = joins.host.key.name, coalesce.ReasonJoined, true
	}
	return d
}

// wouldJoinLocked returns the dial of another host that w would wait for if no
// open connection served it; nil if there is none.
func (p *Pool) wouldJoinLocked(w *waiter, addrs []netip.Addr) *dial {
	if h := p.hosts[w.key()]; h != nil {
		if h.noJoin {
			return nil
		}
		for _, d := range h.dials {
			if d.takes() {
				return nil // its own comes first
			}
		}
	}
	if !p.joinsLocked(w) {
		return nil
	}
	return p.joinableLocked(w, addrs)
}
