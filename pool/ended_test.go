package pool_test

import (
	"errors"
	"testing"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/pool"
)

// P6: a connection that drains takes no more, though others are served on it.
func TestP6_EndedBeforeItIsClosed(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test")
		a, b := r.get("a.test"), r.get("a.test")
		if b.lease.Ended() {
			t.Error("ended before GOAWAY")
		}
		b.conn().obs.GoAway(1, 0)
		b.end()
		if !b.lease.Ended() || r.conn(0).isClosed() {
			t.Errorf("ended %v, closed %v", b.lease.Ended(), r.conn(0).isClosed())
		}
		a.end()
	})
}

// P6: who is turned away is a request that a connection was dialed for, whose
// server has said nothing. What it failed with is told, where the connection has
// no cause of its own.
func TestP6_WhoIsTurnedAway(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.noSettings = true
		fresh := r.get("a.test")
		time.Sleep(time.Second) // SETTINGS are not waited for any more
		again, b := r.get("a.test"), r.get("b.test")
		if err := fresh.lease.TurnedAway(errNoHost); !errors.Is(err, pool.ErrTurnedAway) || !errors.Is(err, errNoHost) {
			t.Errorf("the first request: %v", err)
		}
		for _, c := range []*call{again, b} {
			if err := c.lease.TurnedAway(errNoHost); err != nil {
				t.Errorf("a later one, of %s: %v", c.Host, err)
			}
		}
		fresh.conn().settings(10)
		if err := fresh.lease.TurnedAway(errNoHost); err != nil {
			t.Errorf("after SETTINGS: %v", err)
		}
	})
}

// P6: requests in line for the SETTINGS of a connection that goes. Those that it
// was dialed for learn that it has ended without a word; if it only takes no more,
// or was not dialed for them, they have another one.
func TestP6_TheLineOfAConnectionWithoutAWord(t *testing.T) {
	for name, tt := range map[string]struct {
		event func(*fakeConn)
		want  error // of the request that it was dialed for
	}{
		"ended":    {(*fakeConn).die, pool.ErrTurnedAway},
		"unusable": {func(c *fakeConn) { c.obs.Unusable() }, nil},
		"GOAWAY":   {func(c *fakeConn) { c.obs.GoAway(0, 0) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.shared("a.test")
				r.noSettings = true
				first, second := r.goGet("a.test"), r.goGet("a.test")
				time.Sleep(handshake)
				wantServed(t, first)
				later := r.goGet("a.test")
				wantWaiting(t, second, later)
				r.set(func() { r.noSettings = false })
				tt.event(r.conn(0))
				time.Sleep(handshake)
				wantServed(t, later)
				if <-second.done; !errors.Is(second.err, tt.want) {
					t.Errorf("%v, want %v", second.err, tt.want)
				}
				r.wantDials(2)
			})
		})
	}
}

// P6: a connection goes just as the second of those who waited for it is about to
// take its stream. If it was dialed for that one, it is told, lest it dial for
// ever; if for another host, it goes its own way.
func TestP6_GoneBetweenLeaseAndStream(t *testing.T) {
	for host, want := range map[string]error{"a.test": pool.ErrUnusable, "b.test": nil} {
		t.Run(host, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.shared("a.test", "b.test")
				asked := 0
				r.reserve = func(c *fakeConn, granted bool) bool {
					if asked++; asked != 2 {
						return granted
					}
					said := make(chan bool)
					go func() {
						defer close(said)
						c.obs.GoAway(1, 0)
					}()
					<-said
					return false
				}
				r.noSettings = true // at first, so that they ask one after the other
				first, second := r.goGet("a.test"), r.goGet(host)
				time.Sleep(handshake)
				wantServed(t, first)
				r.set(func() { r.noSettings = false })
				r.conn(0).settings(10)
				time.Sleep(handshake)
				if <-second.done; !errors.Is(second.err, want) || want == nil && second.kind() != coalesce.ReasonDialed {
					t.Errorf("%s, %v, want the error %v", second.kind(), second.err, want)
				}
			})
		})
	}
}
