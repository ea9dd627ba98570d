package pool_test

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

// lists has the server of c send an ORIGIN frame that lists hosts.
func (c *fakeConn) lists(hosts ...string) {
	entries := make([]string, len(hosts))
	for i, h := range hosts {
		entries[i] = "https://" + h
	}
	c.obs.Origin(entries, 0)
	synctest.Wait()
}

// pair is a connection of a.test and one of c.test, idle, whose certificate and
// address are the same; what a case sets is done before they are opened.
func (r *rig) pair(set func(r *rig)) (a, c *fakeConn) {
	r.t.Helper()
	r.shared("a.test", "b.test", "c.test")
	if set != nil {
		set(r)
	}
	r.get("a.test").end()
	r.do(own("c.test")).end()
	r.wantDials(2)
	return r.conn(0), r.conn(1)
}

// O6: the connection with the smaller set closes, and its hosts go on at once on
// the other, without a look-up or a dial.
func TestO6_ProperSubsetIsRetired(t *testing.T) {
	for _, match := range []coalesce.Match{coalesce.MatchAddress, coalesce.MatchOrigin, coalesce.MatchCertificate} {
		for name, frames := range map[string]func(a, c *fakeConn){
			"the larger comes last":  func(a, c *fakeConn) { a.lists("b.test"); c.lists("a.test", "b.test") },
			"the smaller comes last": func(a, c *fakeConn) { c.lists("a.test", "b.test"); a.lists("b.test") },
			"in two frames":          func(a, c *fakeConn) { a.lists("b.test"); c.lists("a.test"); c.lists("b.test") },
			"empty frame":            func(a, c *fakeConn) { a.lists(); c.lists("a.test", "b.test") },
		} {
			t.Run(match.String()+"/"+name, func(t *testing.T) {
				bubble(t, func(t *testing.T, r *rig) {
					a, c := r.pair(nil)
					r.get("b.test").end()
					frames(a, c)
					if !a.isClosed() || c.isClosed() {
						t.Fatalf("a's is closed: %t, c's: %t", a.isClosed(), c.isClosed())
					}
					lookups := func() int { r.mu.Lock(); defer r.mu.Unlock(); return r.lookups["a.test"] }
					before := lookups()
					for _, h := range []string{"a.test", "b.test", "c.test"} {
						if got := r.get(h); got.conn() != c || got.took != 0 {
							t.Errorf("%s: %s on %d after %v", h, got.kind(), got.lease.ID(), got.took)
						}
					}
					if lookups() != before {
						t.Error("a is looked up again")
					}
					r.wantDials(2)
				}, policy(coalesce.Policy{Match: match}))
			})
		}
	}
}

// O6: requests under way finish; those in line move.
func TestO6_RequestsUnderWayFinish(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.maxStreams = 1
		a, c := r.pair(func(r *rig) { r.dns["c.test"] = []netip.Addr{addr2} })
		r.set(func() { r.held = true })
		first := r.get("a.test")
		second := r.goGet("a.test") // full: it has another one dialed, and is in line here
		wantWaiting(t, second)
		a.lists("b.test")
		c.lists("a.test", "b.test")
		wantServed(t, second)
		if second.conn() != c || a.isClosed() {
			t.Errorf("the second is on %d, a's is closed: %t", second.lease.ID(), a.isClosed())
		}
		if info := r.Conns()[0]; !info.Draining || info.Streams != 1 {
			t.Errorf("%+v", info)
		}
		first.end()
		synctest.Wait()
		if !a.isClosed() {
			t.Error("not closed at the end of its last request")
		}
	}, policy(coalesce.Policy{Match: coalesce.MatchOrigin}))
}

// O6: the frames come with the handshake; the request that the connection was
// dialed for is sent on it all the same.
func TestO6_FrameBeforeReady(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test", "c.test")
		r.maxStreams = 1
		c := r.do(own("c.test"))
		r.conn(0).lists("a.test", "b.test")
		r.set(func() {
			r.onDial = func(_ context.Context, d *fakeDial) { d.obs.Origin([]string{"https://b.test"}, 0) }
		})
		a := r.get("a.test")
		if a.kind() != coalesce.ReasonDialed {
			t.Fatalf("a: %s", a.kind())
		}
		a.end()
		synctest.Wait()
		if r.conn(1).isClosed() {
			t.Fatal("retired though the other one has no room")
		}
		c.end()
		r.get("a.test").end() // idle again, and now there is room
		synctest.Wait()
		if !r.conn(1).isClosed() {
			t.Error("not retired when there is room")
		}
		if again := r.get("a.test"); again.conn() != r.conn(0) {
			t.Errorf("a: %s on %d", again.kind(), again.lease.ID())
		}
	})
}

// O6: partitions are apart.
func TestO6_OtherPartition(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test", "c.test")
		r.get("a.test").end()
		q := request("c.test")
		q.Partition = "p"
		r.do(q).end()
		r.conn(0).lists("b.test")
		r.conn(1).lists("a.test", "b.test")
		if r.conn(0).isClosed() {
			t.Error("retired for a connection of another partition")
		}
	})
}

// O6, C6, C11: the caller's code is asked about every host that would move, once.
func TestO6_CallersCodeIsAsked(t *testing.T) {
	var asked []string
	bubble(t, func(t *testing.T, r *rig) {
		asked = nil
		a, c := r.pair(nil)
		r.get("b.test").end()
		a.lists("b.test")
		asked = nil
		c.lists("a.test", "b.test")
		slices.Sort(asked)
		if want := []string{"a.test on c.test", "b.test on c.test"}; !slices.Equal(asked, want) {
			t.Errorf("asked about %q, want %q", asked, want)
		}
		if !a.isClosed() {
			t.Error("not retired")
		}
		for _, h := range []string{"a.test", "b.test"} {
			if on := r.get(h); on.conn() != c {
				t.Errorf("%s on %d", h, on.lease.ID())
			}
		}
		if len(asked) != 2 {
			t.Errorf("asked again: %q", asked)
		}
	}, policy(coalesce.Policy{Allow: func(c coalesce.Candidate) bool {
		asked = append(asked, c.Host+" on "+c.ConnHost)
		return true
	}}))
}

// O6: a refusal of the caller's is kept, and the pool may be closed while it is
// asked.
func TestO6_CallersCodeRefusesOrHangs(t *testing.T) {
	n := 0
	gate := make(chan struct{})
	bubble(t, func(t *testing.T, r *rig) {
		n, gate = 0, make(chan struct{})
		a, c := r.pair(nil)
		a.lists("b.test")
		c.lists("a.test", "b.test")
		if n != 1 {
			t.Fatalf("asked %d times", n)
		}
		r.get("a.test").end() // idle again while it is asked
		close(gate)
		synctest.Wait()
		for range 3 {
			r.get("a.test").end()
		}
		if n != 1 || a.isClosed() {
			t.Errorf("asked %d times, retired: %t", n, a.isClosed())
		}
	}, policy(coalesce.Policy{Allow: func(coalesce.Candidate) bool { n++; <-gate; return false }}))
}

// O6: of three connections the largest stays.
func TestO6_Chain(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a, c := r.pair(nil)
		a.lists()
		r.do(own("b.test")).end()
		b := r.conn(2)
		b.lists("a.test")
		if !a.isClosed() || b.isClosed() {
			t.Fatalf("a's is closed: %t, b's: %t", a.isClosed(), b.isClosed())
		}
		c.lists("a.test", "b.test", "d.test")
		if b.isClosed() {
			t.Error("b's connection is wanted by requests for b alone")
		}
		if on := r.get("a.test"); on.conn() != b {
			t.Errorf("a on %d, want where it was placed", on.lease.ID())
		}
	})
}

// O6: the frames that come with a handshake end an older connection.
func TestO6_RetiredByANewConnection(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test", "c.test")
		a := r.conns0(t)
		a.lists("b.test")
		r.set(func() {
			r.onDial = func(_ context.Context, d *fakeDial) {
				d.obs.Origin([]string{"https://a.test", "https://b.test"}, 0)
			}
		})
		c := r.do(own("c.test"))
		synctest.Wait()
		if c.kind() != coalesce.ReasonDialed || !a.isClosed() {
			t.Errorf("c: %s; a's is closed: %t", c.kind(), a.isClosed())
		}
	})
}

// O6: there is room when SETTINGS have come.
func TestO6_RetiredWhenThereIsRoom(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test", "c.test")
		a := r.conns0(t)
		a.lists("b.test")
		r.set(func() {
			r.noSettings = true
			r.onDial = func(_ context.Context, d *fakeDial) {
				d.obs.Origin([]string{"https://a.test", "https://b.test"}, 0)
			}
		})
		r.do(own("c.test"))
		if a.isClosed() {
			t.Fatal("retired before it is known what the other one takes")
		}
		r.conn(1).settings(100)
		synctest.Wait()
		if !a.isClosed() {
			t.Error("not retired")
		}
	})
}

// O6: of two connections of one host.
func TestO6_OfTheSameHost(t *testing.T) {
	for name, frames := range map[string]func(one, two *fakeConn){
		"the larger comes last":  func(one, two *fakeConn) { one.lists(); two.lists("b.test") },
		"the smaller comes last": func(one, two *fakeConn) { two.lists("b.test"); one.lists() },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.shared("a.test", "b.test")
				r.maxStreams = 1
				first, second := r.get("a.test"), r.get("a.test")
				first.end()
				second.end()
				one, two := r.conn(0), r.conn(1)
				frames(one, two)
				if !one.isClosed() || two.isClosed() {
					t.Errorf("the first is closed: %t, the second: %t", one.isClosed(), two.isClosed())
				}
				if a := r.get("a.test"); a.conn() != two || a.kind() != coalesce.ReasonOwn {
					t.Errorf("a: %s on %d", a.kind(), a.lease.ID())
				}
			})
		})
	}
}

// O6: a connection that ends while the caller's code is asked leaves nothing to
// the other.
func TestO6_EndsWhileTheCallersCodeIsAsked(t *testing.T) {
	var gate chan struct{}
	bubble(t, func(t *testing.T, r *rig) {
		gate = make(chan struct{})
		a, c := r.pair(nil)
		a.lists("b.test")
		c.lists("a.test", "b.test")
		a.die()
		close(gate)
		synctest.Wait()
		for _, info := range r.Conns() {
			if !slices.Equal(info.Hosts, []string{"c.test"}) {
				t.Errorf("%+v", info)
			}
		}
	}, policy(coalesce.Policy{Allow: func(coalesce.Candidate) bool { <-gate; return true }}))
}

// O6: a host whose look-up is forgotten is looked up again when that would have
// been due on the connection that closed.
func TestO6_ForgottenLookUp(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a, c := r.pair(nil)
		time.Sleep(30 * time.Second)
		r.get("b.test").end()
		time.Sleep(20 * time.Second)
		// A dial that fails makes the pool forget.
		r.set(func() { r.dialErr["a.test"], r.dialErr["b.test"] = errRefused, errRefused })
		a.settings(1)
		held := r.get("a.test")
		for _, h := range []string{"a.test", "b.test"} {
			q := r.goDo(own(h))
			time.Sleep(handshake)
			q.cancel(nil)
			<-q.done
		}
		r.wantDials(4)
		held.end()
		a.lists("b.test")
		c.lists("a.test", "b.test")
		if !a.isClosed() {
			t.Fatal("not retired")
		}
		for _, tt := range []struct {
			host  string
			after time.Duration
			want  int // more look-ups
		}{
			{"a.test", 11 * time.Second, 1},
			{"b.test", 0, 0},
			{"b.test", 30 * time.Second, 1},
		} {
			time.Sleep(tt.after)
			before := r.lookups[tt.host]
			if on := r.get(tt.host); on.conn() != c {
				t.Errorf("%s on %d", tt.host, on.lease.ID())
			}
			r.wantLookups(tt.host, before+tt.want)
		}
	}, policy(coalesce.Policy{AddressTTL: time.Minute}))
}

// O6: hosts that have gone to another connection, or to one of their own, stay
// there.
func TestO6_HostsThatHaveLeftAlready(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test", "c.test", "d.test")
		a := r.conns0(t)
		r.get("b.test").end()
		r.get("c.test").end()
		r.do(own("c.test")).end()
		c := r.conn(1)
		r.do(own("d.test")).end()
		d := r.conn(2)
		a.settings(0)
		c.settings(0)
		if b := r.get("b.test"); b.conn() != d {
			t.Fatalf("b on %d", b.lease.ID())
		}
		a.settings(100)
		c.settings(100)
		a.lists("b.test", "c.test")
		c.lists("a.test", "b.test", "x.test")
		if !a.isClosed() {
			t.Fatal("not retired")
		}
		if got, want := r.Conns()[0].Hosts, []string{"a.test", "c.test"}; !slices.Equal(got, want) {
			t.Errorf("hosts on c's connection: %q, want %q", got, want)
		}
		for host, want := range map[string]*fakeConn{"a.test": c, "b.test": d, "c.test": c} {
			if on := r.get(host); on.conn() != want {
				t.Errorf("%s on %d", host, on.lease.ID())
			}
		}
	})
}

// O6: where the host's address was looked up long ago, it is checked as soon as
// it would have been on the connection that closed.
func TestO6_AddressTTLGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a, c := r.pair(nil)
		r.get("b.test").end()
		time.Sleep(50 * time.Second)
		a.lists("b.test")
		c.lists("a.test", "b.test")
		r.set(func() { r.dns["a.test"], r.dns["b.test"] = []netip.Addr{addr2}, []netip.Addr{addr2} })
		time.Sleep(11 * time.Second)
		for _, h := range []string{"a.test", "b.test"} {
			if on := r.get(h); on.conn() != c {
				t.Errorf("%s on %d", h, on.lease.ID())
			}
			synctest.Wait()
			if on := r.get(h); on.conn() == c {
				t.Errorf("%s stays, though its address has moved", h)
			}
		}
	}, policy(coalesce.Policy{AddressTTL: time.Minute}))
}
