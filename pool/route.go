package pool

import (
	"net/netip"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

// freshAnswer is how old a look-up may be for its addresses to be dialed. It
// spares a second look-up to a host that needs a connection of its own right
// after it was looked up to share one; older answers would dial where the host
// no longer is.
const freshAnswer = 10 * time.Second

// openLocked serves the common case: an open connection of the host, or the
// one that it has been placed on.
func (p *Pool) openLocked(h *host, r *Request) (Lease, bool) {
	for _, e := range h.own {
		if e.free(newcomer) && e.id != r.Avoid {
			return p.takeLocked(e, nil, r, coalesce.ReasonOwn), true
		}
	}
	e := h.placed
	if e == nil || r.ownOnly() || !e.free(newcomer) {
		return Lease{}, false
	}
	pl, ok := p.standingLocked(h, e)
	if !ok || r.ProvenOnly && !pl.proven.Load() {
		return Lease{}, false
	}
	return p.takeLocked(e, pl, r, coalesce.ReasonShared), true
}

// standingLocked returns h's placement on e if it still holds. A host stays
// where it was placed without DNS, but not beyond the certificate's validity
// (C4); after AddressTTL its address is looked up again in the background.
func (p *Pool) standingLocked(h *host, e *entry) (*placement, bool) {
	pl := e.hosts[h.key.name]
	if pl == nil {
		return nil, false
	}
	now := time.Now()
	if !e.cert.coverage.ValidAt(now) {
		p.unplaceLocked(e, h.key.name)
		return nil, false
	}
	ttl := p.cfg.Policy.AddressTTLOrDefault()
	if pl.byAddress && !pl.checking && ttl >= 0 && now.Sub(pl.checked) > ttl {
		p.recheckLocked(h, e, pl)
	}
	return pl, true
}

// choice is what chooseLocked found for a waiter.
type choice struct {
	e       *entry // free and qualified; nil if there is none
	own     bool   // e was dialed for the waiter's host
	consult *entry // the caller's code has to be asked about it first

	settling bool // one that qualifies is expected to have room before another could be dialed
	stalling bool // one that qualifies takes no streams for a while; another one would fare no better
	streams  int  // the limit of one that qualifies but is full; 0 if there is none
}

// full notes that e qualifies but has no stream left, and puts w in line.
func (c *choice) full(e *entry, w *waiter) {
	w.register(e)
	switch {
	case !e.settled:
		c.settling = true
	case e.stallingFor(w):
		c.stalling = true // RFC 9113 §6.5.2: for a short time
	case e.refused && e.refusals <= refusalPatience: // the engine lags behind
		c.settling = true
	}
	c.streams = e.limit()
}

// stallingFor reports whether e takes no streams for now, and w is to wait for that to
// end.
func (e *entry) stallingFor(w *waiter) bool {
	return e.limit() == 0 && !e.stalled && e.servesLike(w)
}

// servesLike reports whether a connection that is dialed for w leads to e's
// server, as far as that is known: it has w's host, or an address of w's.
func (e *entry) servesLike(w *waiter) bool {
	return e.key == w.host.key || e.pool.cfg.Policy.Match == coalesce.MatchAddress
}

// chooseAgainLocked is chooseLocked for a waiter that may be in line already.
// It leaves the lines of connections that do not qualify any more.
func (p *Pool) chooseAgainLocked(w *waiter) choice {
	before := w.registered
	w.registered = nil
	p.marks++
	w.mark = p.marks
	c := p.chooseLocked(w)
	for _, e := range before {
		if e.mark != w.mark {
			e.leave(w)
		}
	}
	c.stalling = c.stalling || w.stalled() > 1
	return c
}

// stalled returns how many of the connections that w is in line for have taken no
// streams for so long that another one was to be tried.
func (w *waiter) stalled() (n int) {
	for _, e := range w.registered {
		if e.stalled && e.servesLike(w) {
			n++
		}
	}
	return n
}

// chooseLocked looks for a connection for w among the ready ones: the host's
// own, then the one that it was placed on, then the oldest that qualifies.
// With those that qualify but are full, w is put in line.
func (p *Pool) chooseLocked(w *waiter) choice {
	var c choice
	for _, e := range w.host.own {
		switch {
		case e.id == w.Avoid:
		case e.free(w.seq):
			return choice{e: e, own: true}
		default:
			c.full(e, w)
		}
	}
	if w.ownOnly() {
		return c
	}
	if e := w.host.placed; e != nil {
		pl, ok := p.standingLocked(w.host, e)
		switch {
		case !ok || w.ProvenOnly && !pl.proven.Load():
		case e.free(w.seq):
			return choice{e: e}
		default:
			c.full(e, w)
		}
	}
	p.chooseSharedLocked(w, &c)
	return c
}

// chooseSharedLocked completes c with the oldest connection of another host
// that the rules admit.
func (p *Pool) chooseSharedLocked(w *waiter, c *choice) {
	now := time.Now()
	addrs, _ := p.addressesLocked(w.host.key, p.evidenceAge(), now)
	ask := w.ask(addrs)
	for conns := range p.index.covering(w.host.key, addrs) {
		for _, e := range conns {
			if c.e != nil && c.e.id <= e.id {
				break // the rest are younger still
			}
			if e.key == w.host.key || !p.qualifiesLocked(w, e, &ask, now) {
				continue
			}
			if p.unaskedLocked(w, e) {
				c.consult = e
				return
			}
			if e.freeForOthers(w.seq) {
				c.e = e
				break
			}
			c.full(e, w)
		}
	}
}

// qualifiesLocked reports whether the rules admit e, another host's connection,
// for w, as far as they have been asked.
func (p *Pool) qualifiesLocked(w *waiter, e *entry, ask *coalesce.Request, now time.Time) bool {
	return w.provenOn(e) && p.judgeLocked(w, e, ask, now) == coalesce.ReasonShared
}

// answerAge is how old a look-up may be for w to dial its addresses. One that
// was made for w will do when at last w's turn comes, up to evidence: another
// look-up would cost w its turn.
func (w *waiter) answerAge(evidence time.Duration) time.Duration {
	if w.looked {
		return max(freshAnswer, evidence)
	}
	return freshAnswer
}

// provenOn reports whether e will do for a request that needs proof.
func (w *waiter) provenOn(e *entry) bool {
	if !w.ProvenOnly {
		return true
	}
	pl := e.hosts[w.Host]
	return pl != nil && pl.proven.Load()
}

// unaskedLocked reports whether the caller's code has yet to be asked about e.
func (p *Pool) unaskedLocked(w *waiter, e *entry) bool {
	return w.answers[e.id] == "" && e.hosts[w.Host] == nil && p.cfg.Policy.Consults(&e.facts)
}

// judgeLocked asks the rules about e, on behalf of w.
func (p *Pool) judgeLocked(w *waiter, e *entry, ask *coalesce.Request, now time.Time) coalesce.Reason {
	ask.Said = w.answers[e.id]
	return p.judgeAskedLocked(e, ask, now)
}

// judgeAskedLocked is judgeLocked where ask.Said is set.
func (p *Pool) judgeAskedLocked(e *entry, ask *coalesce.Request, now time.Time) coalesce.Reason {
	placed := e.hosts[ask.Host] != nil
	e.facts.Draining = e.state != stateReady
	e.facts.HostsFull = !placed && e.hostsFull()
	ask.Misdirected = e.excludes(ask.Host)
	r := p.cfg.Policy.Judge(&e.facts, ask, now)
	if r == coalesce.ReasonOwn && ask.Misdirected {
		return coalesce.ReasonMisdirected // see Lease.Disown
	}
	if r == coalesce.ReasonShared && p.rememberedLocked(e, ask.Host, now) {
		return coalesce.ReasonMisdirected // C10; looked up only where it makes a difference
	}
	return r
}

// staleAnswer is how old a look-up may be to justify a new sharing where
// AddressTTL sets no limit: what it justified before stays, but the host may
// have moved since.
const staleAnswer = 5 * time.Minute

// evidenceAge is how old a look-up may be to justify a new sharing.
func (p *Pool) evidenceAge() time.Duration {
	if ttl := p.cfg.Policy.AddressTTLOrDefault(); ttl >= 0 {
		return ttl
	}
	return staleAnswer
}

// routeLocked serves w, or sees to it that something will: a connection that
// it is in line for, a look-up, a handshake, or room for a dial.
func (p *Pool) routeLocked(w *waiter) {
	if w.done || w.consulting {
		return
	}
	if addrs, room, must := p.mustDialLocked(w); must {
		p.dialLocked(w, addrs, room)
		return
	}
	// It needs no room now. Were it to stay in line for some, connections
	// would be closed for it in vain.
	p.starved.remove(w)
	w.host.crowded.remove(w)
}

// mustDialLocked is routeLocked's part but for the dial; it reports whether
// that is what remains, at which addresses, and for how many requests.
func (p *Pool) mustDialLocked(w *waiter) (addrs []netip.Addr, room int, must bool) {
	c := p.chooseAgainLocked(w)
	switch {
	case c.consult != nil:
		w.consulting = true
		w.ch <- message{consult: c.consult}
		return nil, 0, false
	case c.e != nil:
		p.serveLocked(w, c.e, c.own)
		return nil, 0, false
	case c.settling || w.dial != nil:
		return nil, 0, false // SETTINGS, or the handshake's end, bring it back here
	}
	now := time.Now()
	addrs, known := p.addressesLocked(w.host.key, w.answerAge(p.evidenceAge()), now)
	rests := len(w.registered) > 0 && now.Before(w.host.holdOff)
	if p.cfg.Resolve != nil && !known && !rests {
		p.lookUpLocked(w)
		return nil, 0, false
	}
	p.leaveLookupLocked(w) // another request's has answered
	return addrs, c.streams, !c.stalling && !p.joinLocked(w, addrs) && !rests
}

// serveLocked leases a stream of e, which qualifies for w and is free, to w.
func (p *Pool) serveLocked(w *waiter, e *entry, own bool) {
	kind := coalesce.ReasonOwn
	var pl *placement
	switch {
	case own && w.came == e:
		kind = coalesce.ReasonDialed
	case own:
	case w.came == e:
		kind = coalesce.ReasonJoined
	default:
		kind = coalesce.ReasonShared
	}
	var considered *consideration
	if w.Explain {
		// A host that needs no look-up may have been looked up long ago. What
		// was found then says more of the other connections than nothing.
		a, _ := p.answers.Peek(w.host.key)
		considered = p.considerLocked(w, a.addrs)
	}
	if !own {
		pl = p.placeLocked(w.host, e)
	}
	l := p.takeLocked(e, pl, &w.Request, kind)
	l.considered = considered
	p.deliverLocked(w, l)
}

// handLocked gives w, who is in line for e, a stream of it, if e still
// qualifies. A false result takes w off the line.
func (p *Pool) handLocked(e *entry, w *waiter) bool {
	if e.key == w.host.key {
		if e.excludes(w.Host) {
			return false
		}
		p.serveLocked(w, e, true)
		return true
	}
	now := time.Now()
	addrs, _ := p.addressesLocked(w.host.key, p.evidenceAge(), now)
	ask := w.ask(addrs)
	if w.consulting || p.unaskedLocked(w, e) || !p.qualifiesLocked(w, e, &ask, now) {
		return false
	}
	p.serveLocked(w, e, false)
	return true
}
