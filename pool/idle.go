package pool

import (
	"math"
	"time"
)

// idleList holds the connections without a request, the one that has been so
// for longest first. It is linked through the entries.
type idleList struct {
	oldest, newest *entry
	len            int
}

func (l *idleList) add(e *entry) {
	e.inIdle = true
	e.idlePrev, e.idleNext = l.newest, nil
	if l.newest != nil {
		l.newest.idleNext = e
	} else {
		l.oldest = e
	}
	l.newest = e
	l.len++
}

func (l *idleList) remove(e *entry) {
	if !e.inIdle {
		return
	}
	if e.idlePrev != nil {
		e.idlePrev.idleNext = e.idleNext
	} else {
		l.oldest = e.idleNext
	}
	if e.idleNext != nil {
		e.idleNext.idlePrev = e.idlePrev
	} else {
		l.newest = e.idlePrev
	}
	e.idlePrev, e.idleNext, e.inIdle = nil, nil, false
	l.len--
}

// becomeIdleLocked notes that nothing is under way on e.
func (p *Pool) becomeIdleLocked(e *entry) {
	if e.inIdle {
		return
	}
	e.idleSince = time.Now()
	p.idle.add(e)
	p.armIdleLocked(e)
	p.trimIdleLocked()
	if p.shortLocked() {
		p.evictLocked() // somebody else needs its place more, or nobody may have it
	}
}

// roomLocked returns for how many connections there is room under MaxConns once
// those being closed are gone; a negative number if there are too many, since
// SetLimits has left room for fewer.
func (p *Pool) roomLocked() int {
	if m := p.limits.MaxConns; m > 0 {
		return m - (p.total - p.closing)
	}
	return math.MaxInt
}

// shortLocked reports whether there will be less room than is waited for.
func (p *Pool) shortLocked() bool { return p.starved.len() > p.roomLocked() }

// trimIdleLocked enforces MaxIdleConns.
func (p *Pool) trimIdleLocked() {
	for m := p.limits.MaxIdleConns; m > 0 && p.idle.len > m; {
		p.evictLocked()
	}
}

// evictLocked closes the connection that has been idle for longest.
func (p *Pool) evictLocked() bool {
	e := p.idle.oldest
	if e == nil {
		return false
	}
	p.stats.Evicted++
	p.setStateLocked(e, stateClosed)
	return true
}

// expireLocked ends e if it is past the limits. Where SetLimits has shortened them
// a timer would come too late for the requests right behind it.
func (p *Pool) expireLocked(e *entry) {
	switch age, idle := p.limits.MaxAge, p.limits.IdleTimeout; {
	case age > 0 && time.Since(e.opened) >= age:
		p.setStateLocked(e, stateDraining)
	case idle > 0 && e.inIdle && time.Since(e.idleSince) >= idle:
		p.setStateLocked(e, stateClosed)
	}
}

// armIdleLocked sees to it that e is closed when it has been idle for
// IdleTimeout. The timer is not stopped when e is used, which would cost every
// request; instead it looks, when it fires, how long e has been idle.
func (p *Pool) armIdleLocked(e *entry) {
	d := p.limits.IdleTimeout
	if d <= 0 || !e.inIdle || e.idleArmed == d {
		return
	}
	if e.idleTimer != nil {
		e.idleTimer.Stop()
	}
	e.idleArmed = d
	e.idleTimer = time.AfterFunc(d-time.Since(e.idleSince), func() { p.idleFired(e, d) })
}

func (p *Pool) idleFired(e *entry, armed time.Duration) {
	p.mu.Lock()
	defer p.unlock()
	if e.idleArmed != armed {
		return // another timer has taken over
	}
	e.idleArmed = 0
	if !e.inIdle {
		return // armed again when it becomes idle
	}
	if d := p.limits.IdleTimeout; d > 0 && time.Since(e.idleSince) >= d {
		p.setStateLocked(e, stateClosed)
		return
	}
	p.armIdleLocked(e)
}

// armAgeLocked sees to it that e takes no more requests at MaxAge.
func (p *Pool) armAgeLocked(e *entry) {
	e.age.stop()
	if d := p.limits.MaxAge; d > 0 {
		e.age.set(p, d-time.Since(e.opened), func() { p.setStateLocked(e, stateDraining) })
	}
}
