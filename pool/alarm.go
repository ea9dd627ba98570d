package pool

import "time"

// alarm is a timer that Pool.mu guards. One that was set anew or stopped does not
// go off, not even if it was about to.
type alarm struct {
	timer *time.Timer // nil if it is not set
	times int         // that it was set or stopped
}

// set has f called after d, with p.mu held, in place of what it was set for.
func (a *alarm) set(p *Pool, d time.Duration, f func()) {
	a.stop()
	times := a.times
	a.timer = time.AfterFunc(d, func() {
		p.mu.Lock()
		defer p.unlock()
		if a.times == times {
			a.timer = nil
			f()
		}
	})
}

func (a *alarm) stop() {
	if a.timer != nil {
		a.timer.Stop()
	}
	a.timer = nil
	a.times++
}
