package pool_test

import (
	"testing"
	"time"

	"github.com/h2coalesce/h2coalesce/pool"
)

// P5: what SetLimits shortens holds for the request right behind it.
func TestP5_SetLimitsHoldsAtOnce(t *testing.T) {
	for name, l := range map[string]pool.Limits{
		"MaxAge":      {MaxAge: time.Minute},
		"IdleTimeout": {IdleTimeout: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.apart("a.test")
				r.get("a.test").end()
				time.Sleep(time.Minute - 1)
				r.SetLimits(l)
				a := r.get("a.test")
				if a.lease.ID() != 1 {
					t.Error("closed too early")
				}
				a.end()
				r.SetLimits(pool.Limits{})
				time.Sleep(time.Minute)
				r.SetLimits(l)
				if a := r.get("a.test"); a.lease.ID() != 2 {
					t.Errorf("on connection %d", a.lease.ID())
				}
			})
		})
	}
}

// P5: MaxAge lets the requests end that are under way, and a second SetLimits
// changes nothing about that.
func TestP5_SetLimitsDrains(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test")
		old := r.get("a.test")
		time.Sleep(time.Hour)
		r.SetLimits(pool.Limits{MaxAge: time.Minute})
		r.SetLimits(pool.Limits{MaxAge: time.Minute, IdleTimeout: time.Second})
		if a := r.get("a.test"); a.lease.ID() != 2 {
			t.Errorf("on connection %d", a.lease.ID())
		}
		if r.conn(0).isClosed() {
			t.Error("closed with a request under way")
		}
		old.end()
		wantOpen(t, r, "a.test")
	})
}

// P5: a connection closed since there are too many makes no room for a request,
// which gets the place of another that becomes idle.
func TestP5_SetLimitsLeavesNoRoom(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test", "c.test", "d.test")
		r.get("a.test")
		b := r.get("b.test")
		r.get("c.test").end()
		r.closing = time.Second
		r.SetLimits(pool.Limits{MaxConns: 2}) // c is closed
		d := r.goGet("d.test")
		b.end()
		time.Sleep(time.Second + handshake)
		wantServed(t, d)
		wantOpen(t, r, "a.test", "d.test")
	})
}

// P5: a connection whose MaxAge was lifted or prolonged takes requests beyond the age
// that it had.
func TestP5_SetLimitsProlongsMaxAge(t *testing.T) {
	for _, age := range []time.Duration{0, 2 * time.Minute} {
		// Long before that, and just before.
		for _, at := range []time.Duration{time.Second, time.Minute} {
			bubble(t, func(t *testing.T, r *rig) {
				r.shared("a.test")
				opened := time.Now().Add(handshake)
				r.get("a.test").end()
				time.Sleep(time.Until(opened.Add(at)) - 1)
				r.SetLimits(pool.Limits{MaxAge: age})
				time.Sleep(time.Minute)
				r.get("a.test")
				r.wantDials(1)
			}, limits(pool.Limits{MaxAge: time.Minute}))
		}
	}
}
