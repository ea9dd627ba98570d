package pool_test

import (
	"cmp"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/pool"
)

// traffic is requests for one host, a new one every 100 ms: they leave its
// connection no idle moment.
type traffic struct {
	rig   *rig
	host  string
	lasts time.Duration // each of them; 200 ms if zero
	calls []*call
	ends  sync.WaitGroup
}

// goOn has it last d longer.
func (tr *traffic) goOn(d time.Duration) {
	for range d / (100 * time.Millisecond) {
		c := tr.rig.goGet(tr.host)
		tr.calls = append(tr.calls, c)
		tr.ends.Go(func() {
			<-c.done
			time.Sleep(cmp.Or(tr.lasts, 200*time.Millisecond))
			c.end()
		})
		time.Sleep(100 * time.Millisecond)
	}
}

// wantTurn demands that c is served while the traffic lasts for d, and ends both.
func (tr *traffic) wantTurn(t *testing.T, c *call, d time.Duration) {
	t.Helper()
	tr.goOn(d)
	wantServed(t, c)
	c.end()
	tr.ends.Wait()
}

// slowest returns how long the request waited that waited longest.
func (tr *traffic) slowest() (d time.Duration) {
	tr.ends.Wait()
	for _, c := range tr.calls {
		d = max(d, c.took)
	}
	return d
}

// inTurn returns a request for a, and one for b that waits for room until newcomers
// are held back from a's connection.
func inTurn(r *rig) (a, b *call) {
	r.apart("a.test", "b.test")
	a = r.get("a.test")
	b = r.goGet("b.test")
	time.Sleep(time.Second)
	synctest.Wait()
	return a, b
}

// P5: a host that is always busy does not keep the room from another one, nor the
// other one from it.
func TestP5_ABusyHostGivesOthersTheirTurn(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test")
		a, b := traffic{rig: r, host: "a.test"}, traffic{rig: r, host: "b.test"}
		a.goOn(time.Second)
		waits := r.goGet("b.test")
		a.goOn(2 * time.Second)
		wantServed(t, waits)
		if want := time.Second + 200*time.Millisecond + handshake; waits.took > want {
			t.Errorf("b waited for %v, want %v", waits.took, want)
		}
		r.check()
		b.goOn(100 * time.Millisecond)
		waits.end()
		b.goOn(3 * time.Second) // a's are in line meanwhile
		if d := a.slowest(); d > 3*time.Second {
			t.Errorf("a request of the busy host waited for %v", d)
		}
		if d := b.slowest(); d > 3*time.Second {
			t.Errorf("a request of the other host waited for %v", d)
		}
		if n := len(r.dialed()); n > 4 {
			t.Errorf("%d dials", n)
		}
	}, one)
}

// P5: nor does one whose requests come while a 421 is sent again.
func TestP5_ABusyHostGivesARetryItsTurn(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		a := traffic{rig: r, host: "a.test"}
		a.goOn(time.Second)
		b := r.get("b.test")
		b.lease.Misdirected()
		b.end()
		q := own("b.test")
		q.Avoid = b.lease.ID()
		retry := r.goDo(q)
		a.goOn(2 * time.Second)
		wantServed(t, retry)
		if retry.lease.ID() != 2 {
			t.Errorf("on connection %d", retry.lease.ID())
		}
		retry.end()
		a.ends.Wait()
	}, one)
}

// P5: a connection that a long stream keeps from being idle is held back from for a
// second at first and eight in the end, and ever more rarely.
func TestP5_ALongStreamCostsOthersLittle(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test")
		long := r.get("a.test")
		b := r.goGet("b.test")
		began, held := time.Now(), 0
		for time.Since(began) < time.Hour {
			a := r.goGet("a.test")
			<-a.done
			a.end()
			if a.took > 8*time.Second {
				t.Fatalf("held back for %v", a.took)
			}
			if a.took > 0 {
				held++
			}
			time.Sleep(time.Second / 4)
		}
		if held < 50 || held > 70 { // after 1, 2, 4 ... 32 s, then every minute
			t.Errorf("requests were held back %d times in an hour", held)
		}
		wantWaiting(t, b)
		long.end()
		synctest.Wait()
		time.Sleep(handshake)
		wantServed(t, b)
		r.wantDials(2)
	}, one)
}

// P5: nor do requests that take longer than the first turns last.
func TestP5_LongRequestsGiveOthersTheirTurn(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test")
		a := traffic{rig: r, host: "a.test", lasts: 2500 * time.Millisecond}
		a.goOn(time.Second)
		a.wantTurn(t, r.goGet("b.test"), 15*time.Second)
	}, one)
}

// P4, P5: who is in line for a connection whose streams do not come free waits for
// room like others.
func TestP5_ATurnForThoseBehindLongStreams(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test")
		r.maxStreams = 1
		r.get("a.test")
		r.set(func() { r.maxStreams = 100 })
		b := traffic{rig: r, host: "b.test"}
		b.goOn(time.Second)
		a := r.goGet("a.test")
		b.wantTurn(t, a, 3*time.Second)
		r.wantDials(4) // a, b, a, and b once more
	}, limits(pool.Limits{MaxConns: 2}))
}

// P4, P5: where streams do come free, nobody else is held back for those in line.
func TestP5_NoTurnForALineThatAdvances(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test")
		r.maxStreams = 1
		r.get("a.test").end()
		r.set(func() { r.maxStreams = 100 })
		b := traffic{rig: r, host: "b.test", lasts: 300 * time.Millisecond}
		b.goOn(100 * time.Millisecond)
		a := traffic{rig: r, host: "a.test", lasts: 400 * time.Millisecond} // twice what its connection can do
		for range 50 {
			a.goOn(100 * time.Millisecond)
			b.goOn(100 * time.Millisecond)
		}
		r.wantDials(2)
		if d := b.slowest(); d > handshake {
			t.Errorf("held back for %v", d)
		}
		a.ends.Wait()
	}, limits(pool.Limits{MaxConns: 2}))
}

// P5: that it was in vain does not make those wait longer who come afterwards.
func TestP5_TheNextTurnComesAsSoon(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test", "c.test")
		long := r.get("a.test")
		given := r.goGet("b.test")
		time.Sleep(time.Minute)
		given.cancel(nil)
		a := traffic{rig: r, host: "a.test"}
		a.goOn(100 * time.Millisecond)
		b := r.goGet("b.test")
		a.goOn(2500 * time.Millisecond) // the first turn is in vain
		long.end()
		a.wantTurn(t, b, 3*time.Second) // but not the second
	}, one)
}

// P5: nor those who have waited as long.
func TestP5_TheNextInLineHasItsTurnAsSoon(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test", "c.test")
		long := r.get("a.test")
		first, c := r.goGet("b.test"), r.goGet("c.test")
		time.Sleep(time.Minute)
		long.end()
		<-first.done
		b := traffic{rig: r, host: "b.test"}
		b.goOn(100 * time.Millisecond)
		first.end()
		b.wantTurn(t, c, 2*time.Second)
	}, one)
}

// P5: nobody is held back while room comes as it is.
func TestP5_NoTurnWhereRoomComes(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		hosts := names("h%d.test", 20)
		r.apart(append(hosts, "a.test")...)
		a := traffic{rig: r, host: "a.test"}
		a.goOn(100 * time.Millisecond)
		var ends sync.WaitGroup
		for _, c := range r.goGetAll(hosts...) {
			ends.Go(func() {
				<-c.done
				time.Sleep(time.Second / 2)
				c.end()
			})
		}
		a.goOn(12 * time.Second)
		ends.Wait()
		if d := a.slowest(); d > handshake {
			t.Errorf("held back for %v", d)
		}
	}, limits(pool.Limits{MaxConns: 2}))
}

// P4, P5: who is in line only where no streams are given waits for room all the
// same.
func TestP5_ATurnForThoseWithoutStreams(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test")
		r.get("a.test")
		r.conn(0).settings(0)
		b := traffic{rig: r, host: "b.test"}
		b.goOn(time.Second)
		a := r.goGet("a.test")
		b.wantTurn(t, a, 8*time.Second)
	}, limits(pool.Limits{MaxConns: 2}))
}

// P5: each connection has its turn, so that a long stream on one does not keep the
// room of the others.
func TestP5_EachConnectionHasItsTurn(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test", "c.test")
		r.get("b.test") // one stream, less than a has
		a := traffic{rig: r, host: "a.test"}
		a.goOn(time.Second)
		c := r.goGet("c.test")
		a.goOn(5 * time.Second)
		wantServed(t, c)
		wantOpen(t, r, "b.test", "c.test")
		c.end()
		a.ends.Wait()
	}, limits(pool.Limits{MaxConns: 2}))
}

// P5: the first turn is that of the connection with the fewest requests.
func TestP5_TheLeastBusyHasTheFirstTurn(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test", "c.test")
		for range 5 {
			r.get("b.test")
		}
		a := traffic{rig: r, host: "a.test"}
		a.goOn(time.Second)
		c := r.goGet("c.test")
		a.goOn(2 * time.Second)
		wantServed(t, c)
		if want := time.Second + 200*time.Millisecond + handshake; c.took > want {
			t.Errorf("waited for %v, want %v", c.took, want)
		}
		c.end()
		a.ends.Wait()
	}, limits(pool.Limits{MaxConns: 2}))
}

// P5: the requests of other hosts are held back as well, those placed there and
// those yet to come.
func TestP5_GuestsAreHeldBack(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "placed.test", "new.test")
		r.apart("b.test")
		r.get("a.test")
		r.get("placed.test").end()
		b := r.goGet("b.test")
		time.Sleep(time.Second)
		synctest.Wait()
		calls := r.goGetAll("placed.test", "new.test", "a.test")
		wantWaiting(t, calls...)
		d, err := r.Explain(t.Context(), request("placed.test"))
		if err != nil || len(d.Considered) != 1 || d.Considered[0].Reason != coalesce.ReasonFull {
			t.Errorf("Explain: %+v, %v", d, err)
		}
		b.cancel(nil)
		wantServed(t, calls...)
		r.wantDials(1)
	}, one)
}

// P5: newcomers are let in as soon as nobody waits for room any more.
func TestP5_NobodyIsHeldBackInVain(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		first, b := inTurn(r)
		a := r.goGet("a.test")
		wantWaiting(t, a, b)
		time.Sleep(time.Second / 2)
		b.cancel(nil)
		wantServed(t, a)
		if a.took != time.Second/2 {
			t.Errorf("held back for %v", a.took)
		}
		// The same with more room.
		b = r.goGet("b.test")
		time.Sleep(time.Second)
		synctest.Wait()
		c := r.goGet("a.test")
		wantWaiting(t, b, c)
		r.SetLimits(pool.Limits{MaxConns: 2})
		wantServed(t, c)
		time.Sleep(handshake)
		wantServed(t, b)
		endAll([]*call{first, a, b, c})
	}, one)
}

// P4, P5: those who wait for a stream are held back from nothing: they are served
// one after the other.
func TestP5_ALineForStreamsIsNotHeldBack(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test")
		r.maxStreams = 2
		began := time.Now()
		var ends sync.WaitGroup
		for range 100 {
			c := r.goGet("a.test")
			ends.Go(func() {
				<-c.done
				time.Sleep(100 * time.Millisecond)
				c.end()
			})
		}
		ends.Wait()
		if d := time.Since(began); d != handshake+5*time.Second {
			t.Errorf("100 requests, two at a time, took %v", d)
		}
	}, one)
}

// P5: those who came before the one who waits for room are served first, on the
// connection that is to become idle for it.
func TestP5_TheTurnKeepsTheLinesOrder(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test")
		r.maxStreams = 1
		a1 := r.get("a.test")
		a2 := r.goGet("a.test")
		b := r.goGet("b.test")
		a3 := r.goGet("a.test")
		time.Sleep(time.Second)
		wantWaiting(t, a2, b, a3)
		a1.end()
		wantServed(t, a2)
		a2.end()
		time.Sleep(handshake)
		wantServed(t, b)
		wantWaiting(t, a3)
		b.end()
		time.Sleep(handshake)
		wantServed(t, a3)
		r.wantDials(3)
	}, one)
}

// P5: nobody is held back while a connection is being closed, which makes the room.
func TestP5_NoTurnWhileOneIsClosed(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test", "c.test")
		r.closing = 3 * time.Second
		r.get("b.test").end()
		a := traffic{rig: r, host: "a.test"}
		a.goOn(time.Second)
		c := r.goGet("c.test") // b's is closed for it
		a.goOn(4 * time.Second)
		wantServed(t, c)
		if d := a.slowest(); d > handshake {
			t.Errorf("held back for %v", d)
		}
		c.end()
	}, limits(pool.Limits{MaxConns: 2}))
}

// P5: no connection is dialed for those who were held back where SetLimits has ended
// the reason.
func TestP5_SetLimitsEndsTheTurnFirst(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		_, b := inTurn(r)
		calls := r.goGetAll("a.test", "a.test")
		wantWaiting(t, calls...)
		r.SetLimits(pool.Limits{MaxConns: 3})
		wantServed(t, calls...)
		time.Sleep(handshake)
		wantServed(t, b)
		r.wantDials(2)
	}, one)
}

// P5: room that comes for somebody else meanwhile makes a turn no longer.
func TestP5_RoomForOthersMakesNoTurnLonger(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.apart("a.test", "b.test", "c.test", "d.test")
		r.get("b.test") // b's has the first turn
		r.conn(0).settings(2)
		r.set(func() { r.maxStreams = 1 })
		r.get("a.test")
		d := r.get("d.test")
		a := r.goGet("a.test") // before c, and in line for a stream as well
		c := r.goGet("c.test")
		time.Sleep(time.Second)
		synctest.Wait()
		b := r.goGet("b.test")
		wantWaiting(t, a, b, c)
		time.Sleep(900 * time.Millisecond)
		d.conn().die()
		time.Sleep(100 * time.Millisecond)
		wantServed(t, a, b)
		wantWaiting(t, c)
	}, limits(pool.Limits{MaxConns: 3}))
}

// P5: room that comes in the very moment in which a turn would begin is room.
func TestP5_RoomAtTheLastMoment(t *testing.T) {
	for range 200 {
		bubble(t, func(t *testing.T, r *rig) {
			r.apart("a.test", "b.test", "c.test", "d.test")
			r.get("a.test")
			d := r.get("d.test")
			b, c := r.goGet("b.test"), r.goGet("c.test")
			time.Sleep(time.Second)
			d.conn().die()
			time.Sleep(handshake)
			wantServed(t, b, r.goGet("a.test"))
			wantWaiting(t, c)
		}, limits(pool.Limits{MaxConns: 2}))
	}
}

// Pool.Close ends the wait for a turn.
func TestP5_CloseDuringATurn(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		_, b := inTurn(r)
		a := r.goGet("a.test")
		wantWaiting(t, a, b)
		r.Close()
		for _, c := range []*call{a, b} {
			if <-c.done; c.err != pool.ErrClosed {
				t.Errorf("%s: %v", c.Host, c.err)
			}
		}
	}, one)
}
