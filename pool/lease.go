package pool

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

// Lease is the right to send one request on a connection, as Get returns it.
// The methods of a zero Lease must not be called. Those of others are safe for
// concurrent use; Release must be called exactly once, when the request ends.
type Lease struct {
	e          *entry
	place      *placement // nil on an own connection
	name       string     // the host's
	fronts     bool       // Request.Fronts
	kind       coalesce.Reason
	reused     bool
	idleFor    time.Duration
	considered *consideration // nil unless Request.Explain
}

// Conn returns the connection.
func (l *Lease) Conn() Conn { return l.e.conn }

// ID returns the connection's number.
func (l *Lease) ID() uint64 { return l.e.id }

// ConnHost returns the host that the connection was dialed for.
func (l *Lease) ConnHost() string { return l.e.key.name }

// RemoteAddr returns the address that the connection is connected to.
func (l *Lease) RemoteAddr() netip.AddrPort { return l.e.facts.RemoteAddr }

// Shared reports whether the connection was dialed for another host.
func (l *Lease) Shared() bool { return l.place != nil }

// Fresh reports whether the connection was dialed for the request's host while
// the request waited for it: its 421 is then the answer (M1).
func (l *Lease) Fresh() bool { return l.kind == coalesce.ReasonDialed }

// Reused reports whether the connection has carried a request before, and how
// long it had been idle, as httptrace.GotConnInfo has it. A connection that was
// open but unused before is not Reused here, but is in Decision.
func (l *Lease) Reused() (reused bool, idle time.Duration) { return l.reused, l.idleFor }

// Decision tells which connection was chosen, and why. It runs the caller's
// code (C6, C11) about connections that it was not asked about on the way,
// since an older or a better one was found.
func (l *Lease) Decision() coalesce.Decision {
	d := coalesce.Decision{
		Host:     l.name,
		Conn:     l.e.id,
		ConnHost: l.e.key.name,
		Shared:   l.Shared(),
		Reused:   l.kind == coalesce.ReasonOwn || l.kind == coalesce.ReasonShared,
		Reason:   l.kind,
	}
	if l.considered != nil {
		d.Considered = l.considered.verdicts()
	}
	return d
}

// Answered records that the server has answered for the host, with anything
// but a misdirected response.
func (l *Lease) Answered() {
	if l.place == nil || l.place.proven.Load() || l.place.proven.Swap(true) {
		return
	}
	p := l.e.pool
	p.mu.Lock()
	defer p.unlock()
	if h := p.hosts[l.e.hostKey(l.name)]; h != nil && h.waiting > 0 {
		p.queueHostLocked(&p.waiting, l.name) // those that need proof may come
	}
}

// Release gives the stream back when the request has ended.
func (l *Lease) Release() {
	p, e := l.e.pool, l.e
	now := time.Now()
	p.mu.Lock()
	defer p.unlock()
	e.refusals = 0
	e.lastUsed = now
	p.returnLocked(e)
}

// Ended reports whether the connection takes no more requests.
func (l *Lease) Ended() bool {
	p := l.e.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	return l.e.state != stateReady
}

// TurnedAway returns an error that wraps ErrTurnedAway, if the connection was
// dialed for the request, which it has failed with err, and its server has not
// sent a word of HTTP/2; else nil. SETTINGS would be the first (RFC 9113 §3.4).
func (l *Lease) TurnedAway(err error) error {
	p := l.e.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !l.Fresh() || l.e.spoke:
		return nil
	case l.e.cause == nil:
		return fmt.Errorf("%w: %w", ErrTurnedAway, err)
	}
	return l.e.unusable()
}

// takeLocked leases a stream of e, which must be free.
func (p *Pool) takeLocked(e *entry, place *placement, r *Request, kind coalesce.Reason) Lease {
	l := Lease{e: e, place: place, name: r.Host, fronts: r.Fronts, kind: kind, reused: e.requests > 0}
	e.lastUsed = time.Now()
	if e.inIdle {
		l.idleFor = e.lastUsed.Sub(e.idleSince)
		p.idle.remove(e)
	}
	e.wanted = e.wanted || place == nil && (r.ownOnly() || r.ProvenOnly)
	e.streams++
	e.requests++
	p.stats.Streams++
	switch kind {
	case coalesce.ReasonOwn:
		p.stats.Reused++
	case coalesce.ReasonJoined:
		p.stats.Joined++
		p.stats.Shared++
	case coalesce.ReasonShared:
		p.stats.Shared++
	}
	return l
}

// untakeLocked undoes takeLocked's counting, for a stream that the connection
// did not grant.
func (p *Pool) untakeLocked(l *Lease) {
	l.e.requests--
	switch l.kind {
	case coalesce.ReasonOwn:
		p.stats.Reused--
	case coalesce.ReasonJoined:
		p.stats.Joined--
		p.stats.Shared--
	case coalesce.ReasonShared:
		p.stats.Shared--
	}
	p.returnLocked(l.e)
}

// returnLocked takes a stream back.
func (p *Pool) returnLocked(e *entry) {
	e.streams--
	p.stats.Streams--
	p.freedLocked(e)
}

// handOutLocked gives e's free streams to those in line for them.
func (p *Pool) handOutLocked(e *entry) {
	for {
		w := e.next()
		if w == nil || !e.free(w.seq) {
			return
		}
		if !p.handLocked(e, w) {
			e.waiters.remove(w)
			w.unregister(e)
			p.queueLocked(w)
		}
	}
}

// next returns the first in line whom e may serve now.
func (e *entry) next() *waiter {
	if e.settled {
		return e.waiters.front()
	}
	for w := range e.waiters.all() {
		if w.host.key == e.key {
			return w
		}
	}
	return nil
}

// awaited reports whether those in line for e have use for it though it grants no
// stream for now: they wait for SETTINGS, or for the engine. Then it is not idle,
// but where a limit of 0 has lasted for long enough, or until somebody's turn.
func (e *entry) awaited() bool {
	switch {
	case !e.settled, e.refused:
		return e.waiters.len() > 0
	case e.limit() > 0 || e.stalled || e.heldAt != 0:
		return false
	}
	for w := range e.waiters.all() {
		if e.stallingFor(w) {
			return true
		}
	}
	return false
}

// leave takes w off the line for e, which may be idle then.
func (e *entry) leave(w *waiter) {
	e.waiters.remove(w)
	if e.streams == 0 && !e.inIdle && e.state == stateReady && !e.awaited() {
		e.pool.deserted = append(e.pool.deserted, e)
	}
}

// freedLocked hands e's free streams to those in line for them; when nothing
// is under way on e, it becomes idle or, if it is draining, is closed.
func (p *Pool) freedLocked(e *entry) {
	p.handOutLocked(e)
	// Those who have left the line, since what let them share has grown old, may
	// come back when they have been looked up again. Until they are routed they
	// seem to want e's place.
	p.routeQueueLocked()
	if e.streams > 0 || e.awaited() {
		return
	}
	switch e.state {
	case stateDraining:
		p.setStateLocked(e, stateClosed)
	case stateReady:
		if !p.supersededLocked(e) {
			p.becomeIdleLocked(e)
		}
	}
}
