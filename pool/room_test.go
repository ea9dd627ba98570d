package pool_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/h2coalesce/h2coalesce/pool"
)

// P5: the room that a connection leaves behind goes to who came first, not to those
// who were in line for it.
func TestP5_RoomGoesToWhoCameFirst(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test")
		r.maxStreams = 1
		first := r.get("a.test")
		b := r.goGet("b.test")
		a := r.goGet("a.test")
		first.conn().die()
		time.Sleep(handshake)
		wantServed(t, b)
		wantWaiting(t, a)
	}, one)
}

// P5: nor to those who waited for a dial that has failed: hosts whose server is down
// would keep it among them.
func TestP5_FailingDialsKeepNoRoom(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		hosts := names("h%d.test", 10)
		r.shared(hosts...)
		r.apart("b.test")
		for _, h := range hosts {
			r.dialErr[h] = errRefused
		}
		r.goGet(hosts[0])
		b := r.goGet("b.test")
		for _, h := range hosts[1:] {
			time.Sleep(30 * time.Millisecond)
			r.goGet(h) // joins the dial under way, if that is for another one
		}
		wantServed(t, b)
		if b.took != 2*handshake {
			t.Errorf("after %v", b.took)
		}
	}, one)
}

// P5: requests that wait for room and may share a connection need one only: no idle
// connection is closed for the others while it is dialed.
func TestP5_OneRoomForAllWhoShare(t *testing.T) {
	for name, hosts := range map[string][]string{
		"same host":        {"d.test", "d.test", "d.test"},
		"same certificate": {"d.test", "e.test", "f.test"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.apart("a.test", "b.test", "c.test")
				r.shared("d.test", "e.test", "f.test")
				a, b, c := r.get("a.test"), r.get("b.test"), r.get("c.test")
				wait := r.goGetAll(hosts...)
				a.end()
				synctest.Wait()
				b.end()
				c.end()
				time.Sleep(handshake)
				wantServed(t, wait...)
				wantOpen(t, r, "b.test", "c.test", "d.test")
			}, limits(pool.Limits{MaxConns: 3}))
		})
	}
}
