package pool

import (
	"cmp"
	"slices"
	"time"
)

// unlock routes what is in the queue and releases mu.
func (p *Pool) unlock() {
	p.routeQueueLocked()
	p.turnLocked()
	p.mu.Unlock()
}

// routeQueueLocked routes what is in the queue, in the order of the line, and
// then those for whose connections there is room.
func (p *Pool) routeQueueLocked() {
	for {
		if len(p.queue) == 0 {
			p.idleDesertedLocked()
		}
		if len(p.queue) == 0 {
			w := p.nextForRoomLocked()
			if w == nil {
				return
			}
			p.queueLocked(w)
		}
		q := p.queue
		p.queue = nil
		slices.SortFunc(q, func(a, b *waiter) int { return cmp.Compare(a.seq, b.seq) })
		for _, w := range q {
			w.queued = false
			p.routeLocked(w)
		}
	}
}

// idleDesertedLocked makes those connections idle whose line has been left.
func (p *Pool) idleDesertedLocked() {
	es := p.deserted
	p.deserted = nil
	for _, e := range es {
		p.freedLocked(e)
	}
}

// nextForRoomLocked takes the next one out of the lines of those whom only a
// limit keeps from dialing, if the limit does so no more; nil if there is none.
func (p *Pool) nextForRoomLocked() *waiter {
	for len(p.vacated) > 0 {
		h := p.vacated[len(p.vacated)-1]
		if m := p.limits.MaxConnsPerHost; h.crowded.len() > 0 && (m <= 0 || h.count < m) {
			w := h.crowded.front()
			h.crowded.remove(w)
			return w
		}
		p.vacated = p.vacated[:len(p.vacated)-1]
	}
	if m := p.limits.MaxConns; p.starved.len() > 0 && (m <= 0 || p.total < m) {
		w := p.starved.front()
		if next := p.turn.next; next != nil && p.starved.has(next) {
			w = next
		}
		p.starved.remove(w)
		p.roomCameLocked()
		return w
	}
	return nil
}

// queueLocked has a waiter routed before mu is released.
func (p *Pool) queueLocked(w *waiter) {
	if !w.done && !w.queued {
		w.queued = true
		p.queue = append(p.queue, w)
	}
}

// queueAllLocked has all of a line routed.
func (p *Pool) queueAllLocked(l *waitList) {
	for w := range l.all() {
		p.queueLocked(w)
	}
}

// queueRestLocked has those of e's line routed that wait for nothing but a
// stream: now they may dial.
func (p *Pool) queueRestLocked(e *entry) {
	for w := range e.waiters.all() {
		if w.dial == nil && w.lookup == nil && !p.starved.has(w) && !w.host.crowded.has(w) {
			p.queueLocked(w)
		}
	}
}

// queueHostLocked has those of a line routed that wait for the host called name.
func (p *Pool) queueHostLocked(l *waitList, name string) {
	for w := range l.all() {
		if w.Host == name {
			p.queueLocked(w)
		}
	}
}

// crowdLocked moves those of h who wait for MaxConns to the line that waits for
// MaxConnsPerHost, when that is reached: no connection of another host is to be
// closed for them.
func (p *Pool) crowdLocked(h *host) {
	m := p.limits.MaxConnsPerHost
	if m <= 0 || h.count < m || p.starved.len() == 0 {
		return
	}
	for _, w := range p.starved.snapshot() {
		if w.host == h {
			p.starved.remove(w)
			h.crowded.add(w)
		}
	}
}

// expectLocked takes those in line for e, as many as it may well serve when its
// SETTINGS come, out of the lines for room: no connection is to be closed, and
// none dialed, for them. SETTINGS bring those left over back.
func (p *Pool) expectLocked(e *entry) {
	if e.settled && e.limit() > 0 {
		return
	}
	n := 0
	for w := range e.waiters.all() {
		p.starved.remove(w)
		w.host.crowded.remove(w)
		if n++; n == unsettledStreams {
			return
		}
	}
}

// offerLocked puts w in line for e, which has just become ready, if e is for it.
// To route all who wait again would cost as much for each of them as there are
// connections.
func (p *Pool) offerLocked(w *waiter, e *entry) {
	switch {
	case w.consulting:
		return // it is routed afterwards
	case w.host.key == e.key:
		w.register(e)
		return
	case w.ownOnly() || e.cert == nil || !e.cert.coverage.Covers(w.Host):
		return
	}
	now := time.Now()
	addrs, _ := p.addressesLocked(w.host.key, p.evidenceAge(), now)
	ask := w.ask(addrs)
	switch {
	case !p.qualifiesLocked(w, e, &ask, now):
	case p.unaskedLocked(w, e):
		p.queueLocked(w)
	default:
		w.register(e)
	}
}
