package pool

import (
	"slices"
	"time"
)

const (
	// settleWait is how long the server's SETTINGS are waited for before more
	// than one request is sent, or one of another host. A server sends them
	// first of all (RFC 9113 §3.4), so they are a round trip away. SETTINGS that
	// raise a limit of 0 are waited for as long at first, and for twice as long
	// each time that they do not come, up to maxStallWait.
	settleWait   = time.Second
	maxStallWait = time.Minute
	// unsettledStreams is the limit assumed when they have not come: what the
	// engine assumes, and the least that RFC 9113 §6.5.2 recommends.
	unsettledStreams = 100
)

// observer takes in what a connection reports.
type observer struct{ e *entry }

func (o observer) Settings(maxStreams uint32) {
	p := o.e.pool
	p.mu.Lock()
	defer p.unlock()
	o.e.spoke = true
	if !o.e.settled || o.e.maxStreams != maxStreams { // floods are not to cost much
		p.settledLocked(o.e, maxStreams)
	}
}

func (o observer) GoAway(uint32, uint32) {
	p := o.e.pool
	p.mu.Lock()
	defer p.unlock()
	o.e.spoke = true
	p.setStateLocked(o.e, stateDraining)
}

func (o observer) Unusable() { o.e.pool.changed(o.e, stateDraining) }

func (o observer) Closed(err error) {
	p := o.e.pool
	p.mu.Lock()
	defer p.unlock()
	o.e.ended, o.e.cause = true, err
	p.setStateLocked(o.e, stateClosed)
}

func (o observer) Origin(entries []string, dropped int) {
	p, e := o.e.pool, o.e
	p.mu.Lock()
	defer p.unlock()
	seen := e.origins.Seen()
	added := e.origins.Add(entries, dropped)
	e.listed = append(e.listed, added...)
	if e.state != stateReady || seen && len(added) == 0 {
		return // index.add enters what is listed; and floods are not to cost much
	}
	p.index.list(e, added)
	for name := range e.hosts {
		if !e.origins.Contains(name, e.key.port) {
			p.unplaceLocked(e, name) // C8: the set is a fence, also for those inside
		}
	}
	for w := range p.waiting.all() {
		if slices.Contains(added, w.Host) {
			p.queueLocked(w)
		}
	}
	p.queueAllLocked(&e.waiters) // those outside have to look elsewhere
	p.supersedeLocked(e)
}

// changed moves e on, because of something that the connection reported.
func (p *Pool) changed(e *entry, s state) {
	p.mu.Lock()
	defer p.unlock()
	p.setStateLocked(e, s)
}

// armSettleLocked sees to it that the SETTINGS of e, which is ready, are not waited
// for without end: its first ones, or those that raise a limit of 0.
func (p *Pool) armSettleLocked(e *entry) {
	wait := settleWait
	switch {
	case !e.settled:
	case e.maxStreams == 0:
		wait = min(settleWait<<min(p.hosts[e.key].stalls, 16), maxStallWait)
	default:
		p.hosts[e.key].stalls = 0
		e.settle.stop()
		return
	}
	e.settle.set(p, wait, func() { p.unsettledLocked(e) })
}

// unsettledLocked gives up on e's SETTINGS.
func (p *Pool) unsettledLocked(e *entry) {
	switch {
	case e.state != stateReady:
	case !e.settled:
		p.settledLocked(e, unsettledStreams)
	case e.maxStreams == 0:
		e.stalled = true
		p.hosts[e.key].stalls++
		p.freedLocked(e) // it is idle now
		p.queueRestLocked(e)
	}
}

// settledLocked takes in the server's limit on streams.
func (p *Pool) settledLocked(e *entry, maxStreams uint32) {
	e.maxStreams = maxStreams
	e.settled, e.stalled = true, false
	if e.state != stateReady {
		return
	}
	p.armSettleLocked(e)
	p.expectLocked(e)
	p.freedLocked(e)
	p.queueRestLocked(e)
	p.supersedeLocked(e) // it may have the room now
}

// setStateLocked moves e to a later state of its life; it does nothing if e is
// there or beyond. A connection that is being dialed changes its state only,
// since dialed will see it.
func (p *Pool) setStateLocked(e *entry, s state) {
	old := e.state
	if s <= old {
		return
	}
	e.state = s
	switch {
	case s == stateReady:
		p.conns[e] = struct{}{}
		h := p.hostForLocked(e.key)
		h.own = append(h.own, e)
		p.index.add(e)
		p.armAgeLocked(e)
		return
	case e.conn == nil:
		return
	case old == stateReady:
		p.retireLocked(e)
	}
	if e.streams == 0 {
		e.state = stateClosed
	}
	if e.state == stateClosed {
		delete(p.conns, e)
		e.stopTimers()
		p.disposeLocked(e)
	}
}

// retireLocked takes e, which was ready, out of everything that leads to it.
func (p *Pool) retireLocked(e *entry) {
	p.index.remove(e)
	p.idle.remove(e)
	own := p.hostForLocked(e.key)
	own.own = slices.DeleteFunc(own.own, func(o *entry) bool { return o == e })
	p.forgetLocked(own)
	for name := range e.hosts {
		h := p.hosts[e.hostKey(name)]
		if h != nil && h.placed == e {
			h.placed = nil
			p.forgetLocked(h)
		}
	}
	waiters := e.waiters.snapshot()
	e.waiters = waitList{}
	for _, w := range waiters {
		w.unregister(e)
		if e.ended && !e.spoke && w.came == e && w.host == own {
			p.failLocked(w, e.unusable()) // or it would dial for ever
			continue
		}
		p.queueLocked(w)
	}
}

// disposeLocked closes what e holds. Its place among the limited number of
// connections is free when that is done.
func (p *Pool) disposeLocked(e *entry) {
	if e.conn == nil || e.ended && e.streams > 0 { // see Observer.Closed
		e.cancel()
		p.vacateLocked(e)
		return
	}
	p.closing++
	p.goLocked(func() {
		e.conn.Close()
		e.cancel()
		p.mu.Lock()
		defer p.unlock()
		p.closing--
		p.vacateLocked(e)
	})
}

// vacateLocked gives e's place to those who wait for one.
func (p *Pool) vacateLocked(e *entry) {
	p.total--
	h := p.hostForLocked(e.key)
	h.count--
	p.forgetLocked(h)
	if h.crowded.len() > 0 {
		p.vacated = append(p.vacated, h)
	}
}
