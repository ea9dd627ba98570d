package pool

import (
	"cmp"
	"math"
	"slices"
	"time"
)

const (
	// turnWait is for how long no room must have come under MaxConns, while it is
	// waited for, before newcomers are held back from a connection; twice as long
	// each time that this was in vain, up to maxTurnWait.
	turnWait    = time.Second
	maxTurnWait = time.Minute
	// turnFor is for how long they are held back; twice as long, likewise, up to
	// maxTurnFor, since requests may take longer than that.
	turnFor    = time.Second
	maxTurnFor = 8 * time.Second
	// maxTurnTries bounds the search for who can be helped by that.
	maxTurnTries = 100
)

// newcomer is the place in line of a request that does not stand in it.
const newcomer = math.MaxUint64

// turn is how those who wait for room under MaxConns get theirs though no
// connection is ever idle (P5): the requests of a host that is always busy would
// pass them by without end. So whoever came later than the first of them is held
// back from one connection. When that has become idle it makes room. A download may
// keep it from that, so it is let go again soon, and next time it is another
// connection's turn.
type turn struct {
	w     *waiter // the one who waits for room
	e     *entry  // the connection that is to become idle; nil if there is none
	next  *waiter // who gets the next room, whoever is first in line; nil if nobody
	vain  int     // times in a row that it did not
	alarm alarm   // set while anybody waits for room
}

// turnLocked sees to it that those who wait for room do not wait for ever, and that
// newcomers are not held back for nothing.
func (p *Pool) turnLocked() {
	t := &p.turn
	if t.e != nil && (!p.starved.has(t.w) || p.roomLocked() > 0) {
		p.endTurnLocked()
	}
	if t.next != nil && !p.starved.has(t.next) {
		t.next = nil
	}
	switch waited := p.starved.len() > 0; {
	case waited && t.alarm.timer == nil:
		p.roomCameLocked()
	case !waited && t.alarm.timer != nil:
		t.alarm.stop()
	}
}

// roomCameLocked begins the wait for room anew, but makes no turn longer.
func (p *Pool) roomCameLocked() {
	p.turn.vain = 0
	if p.turn.e == nil {
		p.armTurnLocked(turnWait)
	}
}

func (p *Pool) armTurnLocked(d time.Duration) { p.turn.alarm.set(p, d, p.turnDueLocked) }

// turnDueLocked begins a turn, or ends it.
func (p *Pool) turnDueLocked() {
	t := &p.turn
	if t.e != nil {
		t.vain++
		p.armTurnLocked(min(turnWait<<min(t.vain, 16), maxTurnWait))
		p.endTurnLocked()
		return
	}
	w, e := p.nextTurnLocked()
	if w == nil || e == nil || p.roomLocked() > 0 {
		p.armTurnLocked(turnWait)
		return
	}
	p.armTurnLocked(min(turnFor<<min(t.vain, 16), maxTurnFor))
	t.w, t.e = w, e
	e.heldAt = w.seq
	e.turns++
	p.freedLocked(e)
	if e.state == stateClosed { // it takes no streams, and those in line for it came first
		t.next = w
	}
}

// endTurnLocked lets those in who were held back.
func (p *Pool) endTurnLocked() {
	e := p.turn.e
	p.turn.w, p.turn.e = nil, nil
	e.heldAt = 0
	p.freedLocked(e)
	p.routeQueueLocked() // what that has brought about
}

// nextTurnLocked returns whose turn it is, and at which connection.
func (p *Pool) nextTurnLocked() (*waiter, *entry) {
	tries := 0
	for w := range p.starved.all() {
		if w.advances() {
			continue
		}
		if e := p.turnForLocked(w); e != nil {
			return w, e
		}
		if tries++; tries == maxTurnTries {
			break
		}
	}
	return nil, nil
}

// turnForLocked returns the connection to become idle for w: the one that has been
// tried least often, and has the fewest requests to wait for. Those that w is in
// line for serve it when they can.
func (p *Pool) turnForLocked(w *waiter) (e *entry) {
	for c := range p.conns {
		if c.state == stateReady && !slices.Contains(w.registered, c) && (e == nil || cmp.Or(
			cmp.Compare(c.turns, e.turns), cmp.Compare(c.streams, e.streams), cmp.Compare(c.id, e.id)) < 0) {
			e = c
		}
	}
	return e
}

// advances reports whether w can expect a stream where it is in line for one: they
// come free there, or none is given for a short time.
func (w *waiter) advances() bool {
	return slices.ContainsFunc(w.registered, func(e *entry) bool {
		return e.limit() > 0 && time.Since(e.lastUsed) < turnWait || e.stallingFor(w)
	})
}
