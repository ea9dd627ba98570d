package pool_test

import (
	"slices"
	"testing"
	"time"

	"github.com/h2coalesce/h2coalesce/pool"
)

// SetLimits takes effect at once.
func TestP5_SetLimits(t *testing.T) {
	t.Run("MaxConns lowered", func(t *testing.T) {
		bubble(t, func(t *testing.T, r *rig) {
			r.apart("a.test", "b.test", "c.test", "d.test")
			d := r.get("d.test")
			for _, h := range []string{"a.test", "b.test", "c.test"} {
				r.get(h).end()
			}
			r.SetLimits(pool.Limits{MaxConns: 2})
			wantOpen(t, r, "d.test", "c.test")
			r.SetLimits(pool.Limits{MaxConns: 1})
			wantOpen(t, r, "d.test")
			a := r.goGet("a.test")
			wantWaiting(t, a)
			d.end()
			time.Sleep(handshake)
			wantServed(t, a)
		})
	})
	t.Run("MaxConns far below what is in use", func(t *testing.T) {
		bubble(t, func(t *testing.T, r *rig) {
			hosts := []string{"a.test", "b.test", "c.test", "d.test"}
			r.apart(append(hosts, "e.test")...)
			r.closing = 10 * time.Millisecond
			var calls []*call
			for _, h := range hosts {
				calls = append(calls, r.get(h))
			}
			r.SetLimits(pool.Limits{MaxConns: 1})
			e := r.goGet("e.test")
			for _, c := range calls {
				wantWaiting(t, e)
				c.end()
				time.Sleep(r.closing)
			}
			time.Sleep(handshake)
			wantServed(t, e)
			wantOpen(t, r, "e.test")
		})
	})
	t.Run("MaxConns lowered while all are busy", func(t *testing.T) {
		bubble(t, func(t *testing.T, r *rig) {
			r.apart("a.test", "b.test", "c.test")
			calls := []*call{r.get("a.test"), r.get("b.test"), r.get("c.test")}
			r.SetLimits(pool.Limits{MaxConns: 1})
			wantOpen(t, r, "a.test", "b.test", "c.test")
			for _, c := range calls {
				c.end()
			}
			wantOpen(t, r, "c.test") // the others went as soon as they were idle
		})
	})
	t.Run("MaxConns raised", func(t *testing.T) {
		bubble(t, func(t *testing.T, r *rig) {
			r.apart("a.test", "b.test", "c.test")
			r.get("a.test")
			calls := r.goGetAll("b.test", "c.test")
			wantWaiting(t, calls...)
			r.SetLimits(pool.Limits{MaxConns: 2})
			time.Sleep(handshake)
			wantServed(t, calls[0])
			wantWaiting(t, calls[1])
			r.SetLimits(pool.Limits{})
			time.Sleep(handshake)
			wantServed(t, calls[1])
		}, one)
	})
	t.Run("MaxStreamsPerConn", func(t *testing.T) {
		bubble(t, func(t *testing.T, r *rig) {
			r.apart("a.test")
			calls := r.goGetAll(slices.Repeat([]string{"a.test"}, 6)...)
			time.Sleep(handshake)
			wantServed(t, calls[:2]...)
			wantWaiting(t, calls[2:]...)
			r.SetLimits(pool.Limits{MaxConns: 1, MaxStreamsPerConn: 4})
			wantServed(t, calls[:4]...)
			wantWaiting(t, calls[4:]...)
			r.SetLimits(pool.Limits{MaxConns: 1, MaxStreamsPerConn: 1})
			calls[0].end()
			calls[1].end()
			calls[2].end()
			wantWaiting(t, calls[4:]...)
			calls[3].end()
			wantServed(t, calls[4])
			r.SetLimits(pool.Limits{MaxConns: 1})
			wantServed(t, calls[5])
		}, limits(pool.Limits{MaxConns: 1, MaxStreamsPerConn: 2}))
	})
	t.Run("MaxHostsPerConn", func(t *testing.T) {
		bubble(t, func(t *testing.T, r *rig) {
			r.shared("a.test", "b.test", "c.test")
			r.get("a.test")
			r.get("b.test")
			c := r.goGet("c.test")
			wantWaiting(t, c)
			r.SetLimits(pool.Limits{MaxConns: 1, MaxHostsPerConn: 3})
			wantServed(t, c)
			r.SetLimits(pool.Limits{MaxConns: 1, MaxHostsPerConn: 1})
			if b := r.get("b.test"); !b.lease.Shared() {
				t.Error("a placed host does not stay")
			}
		}, limits(pool.Limits{MaxConns: 1, MaxHostsPerConn: 2}))
	})
	t.Run("MaxConnsPerHost", func(t *testing.T) {
		bubble(t, func(t *testing.T, r *rig) {
			r.apart("a.test")
			r.maxStreams = 1
			r.get("a.test")
			a := r.goGet("a.test")
			wantWaiting(t, a)
			r.SetLimits(pool.Limits{MaxConnsPerHost: 2})
			time.Sleep(handshake)
			wantServed(t, a)
		}, limits(pool.Limits{MaxConnsPerHost: 1}))
	})
	t.Run("MaxIdleConns", func(t *testing.T) {
		bubble(t, func(t *testing.T, r *rig) {
			r.apart("a.test", "b.test", "c.test")
			for _, h := range []string{"a.test", "b.test", "c.test"} {
				r.get(h).end()
			}
			r.SetLimits(pool.Limits{MaxIdleConns: 1})
			wantOpen(t, r, "c.test")
		})
	})
	t.Run("IdleTimeout", func(t *testing.T) {
		bubble(t, func(t *testing.T, r *rig) {
			r.apart("a.test", "b.test")
			r.get("a.test").end()
			time.Sleep(10 * time.Second)
			r.get("b.test").end()
			r.SetLimits(pool.Limits{IdleTimeout: time.Minute})
			time.Sleep(20 * time.Second)
			r.SetLimits(pool.Limits{IdleTimeout: time.Hour})
			time.Sleep(time.Minute)
			wantOpen(t, r, "a.test", "b.test")
			r.SetLimits(pool.Limits{IdleTimeout: 90 * time.Second})
			wantOpen(t, r, "b.test") // a has been idle for 90 s and a handshake
			time.Sleep(10*time.Second - 1)
			wantOpen(t, r, "b.test")
			time.Sleep(time.Nanosecond)
			wantOpen(t, r)
		})
	})
	t.Run("IdleTimeout of none", func(t *testing.T) {
		bubble(t, func(t *testing.T, r *rig) {
			r.apart("a.test")
			r.get("a.test").end()
			r.SetLimits(pool.Limits{})
			time.Sleep(time.Hour)
			wantOpen(t, r, "a.test")
			r.SetLimits(pool.Limits{IdleTimeout: 2 * time.Hour})
			time.Sleep(time.Hour - 1)
			wantOpen(t, r, "a.test")
			time.Sleep(time.Nanosecond)
			wantOpen(t, r)
		}, limits(pool.Limits{IdleTimeout: time.Minute}))
	})
	t.Run("MaxAge", func(t *testing.T) {
		bubble(t, func(t *testing.T, r *rig) {
			r.apart("a.test")
			r.get("a.test").end()
			time.Sleep(time.Minute)
			r.SetLimits(pool.Limits{MaxAge: time.Hour})
			time.Sleep(time.Hour - time.Minute - 1)
			wantOpen(t, r, "a.test")
			r.SetLimits(pool.Limits{})
			time.Sleep(time.Hour)
			wantOpen(t, r, "a.test")
			r.SetLimits(pool.Limits{MaxAge: time.Hour}) // past it
			wantOpen(t, r)
		})
	})
}
