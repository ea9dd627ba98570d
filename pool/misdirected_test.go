package pool_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/pool"
)

// misdirect has the request's server answer 421, and ends it.
func (c *call) misdirect() (retry bool) {
	retry = c.lease.Misdirected()
	c.end()
	return retry
}

// M2: the host alone is evicted; the connection's own host and the others stay.
func TestM2_EvictsTheHostAlone(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test", "c.test")
		r.conns0(t).obs.Origin([]string{"https://b.test", "https://c.test"}, 0)
		r.get("c.test").end()
		if b := r.get("b.test"); !b.misdirect() {
			t.Error("M1: not retried")
		}
		info := r.Conns()[0]
		if !slices.Equal(info.Hosts, []string{"a.test", "c.test"}) || !slices.Equal(info.Excluded, []string{"b.test"}) {
			t.Errorf("%+v", info)
		}
		if !slices.Equal(info.OriginSet, []string{"https://a.test", "https://c.test"}) {
			t.Errorf("O3: origin set %q", info.OriginSet)
		}
		r.check()
		if c := r.get("c.test"); c.lease.ID() != 1 {
			t.Errorf("c on %d", c.lease.ID())
		}
		if a := r.get("a.test"); a.lease.ID() != 1 {
			t.Errorf("a on %d", a.lease.ID())
		}
		if b := r.get("b.test"); b.lease.ID() != 2 || b.kind() != coalesce.ReasonDialed {
			t.Errorf("b %s on %d", b.kind(), b.lease.ID())
		}
		// A later frame that lists it again does not bring it back.
		r.conn(0).obs.Origin([]string{"https://b.test"}, 0)
		r.conn(1).die()
		if b := r.get("b.test"); b.lease.ID() != 3 {
			t.Errorf("b on %d", b.lease.ID())
		}
		if s := r.Stats(); s.Misdirected != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// O3, RFC 8336 §2.3: a 421 takes its origin out of the connection's set, also
// that of the connection's own host. The host may use its connection still.
func TestO3_MisdirectedOwnOriginIsRemoved(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.conns0(t).lists("b.test")
		if got := r.Conns()[0].OriginSet; !slices.Equal(got, []string{"https://a.test", "https://b.test"}) {
			t.Errorf("origin set %q", got)
		}
		r.get("a.test").misdirect()
		if got := r.Conns()[0].OriginSet; !slices.Equal(got, []string{"https://b.test"}) {
			t.Errorf("origin set %q after a 421", got)
		}
		if a := r.get("a.test"); a.kind() != coalesce.ReasonOwn {
			t.Errorf("a: %s", a.kind())
		}
		fronted := request("b.test")
		fronted.Fronts = true
		b := r.do(fronted)
		b.conn().lists("c.test")
		b.lease.Misdirected()
		if got := r.Conns()[1].OriginSet; !slices.Contains(got, "https://b.test") {
			t.Errorf("origin set %q: b is out for an answer that was not about b", got)
		}
	})
}

// O3: the retry's 421, too.
func TestO3_MisdirectedAgainIsRemoved(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test")
		a := r.conns0(t)
		a.lists()
		r.get("a.test").lease.MisdirectedAgain()
		if got := r.Conns()[0].OriginSet; len(got) != 0 {
			t.Errorf("origin set %q", got)
		}
	})
}

// conns0 opens the first connection, of a.test.
func (r *rig) conns0(t *testing.T) *fakeConn {
	t.Helper()
	r.get("a.test").end()
	return r.conn(0)
}

// M3: what a server said is remembered beyond its connection, for the TTL, to
// the nanosecond.
func TestM3_MemoryOutlivesTheConnection(t *testing.T) {
	const ttl = 10 * time.Minute
	for _, tt := range []struct {
		name  string
		ttl   time.Duration
		after time.Duration
		want  bool // shared again
	}{
		{"at once", ttl, 0, false},
		{"at the end", ttl, ttl - 1, false},
		{"after", ttl, ttl, true},
		{"negative TTL", -1, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.handshake = 0
				r.shared("a.test", "b.test")
				r.conns0(t)
				r.get("b.test").misdirect()
				r.conn(0).die()
				r.get("a.test").end() // a new connection to the same server
				time.Sleep(tt.after)
				b := r.get("b.test")
				if b.lease.Shared() != tt.want {
					t.Errorf("shared %t, want %t", b.lease.Shared(), tt.want)
				}
			}, misdirectedTTL(tt.ttl))
		})
	}
}

// M3 is about a certificate at an address: another of either is another server.
func TestM3_AnotherServerIsTried(t *testing.T) {
	for name, change := range map[string]func(r *rig){
		"another address":     func(r *rig) { r.host(leaf("a.test", "b.test"), addr2, "a.test", "b.test") },
		"another certificate": func(r *rig) { r.host(leaf("a.test", "b.test", "new.test"), addr1, "a.test", "b.test") },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.shared("a.test", "b.test")
				r.conns0(t)
				r.get("b.test").misdirect()
				r.conn(0).die()
				change(r)
				time.Sleep(time.Minute)
				r.get("a.test").end()
				if b := r.get("b.test"); !b.lease.Shared() {
					t.Errorf("b: %s", b.kind())
				}
			})
		})
	}
}

// With a negative TTL the host is still kept off the very connection.
func TestM3_NegativeTTL(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.conns0(t)
		r.get("b.test").misdirect()
		time.Sleep(24 * time.Hour)
		if b := r.get("b.test"); b.lease.Shared() {
			t.Error("shared with the connection that said 421")
		}
	}, misdirectedTTL(-1))
}

// C10: a 421 holds for all connections with the same certificate and address,
// also for those on which the host has been placed before.
func TestC10_AllConnectionsOfTheServer(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test", "c.test")
		r.maxStreams = 1
		a := r.get("a.test")
		r.do(own("c.test")).end()
		b := r.get("b.test") // placed on 2, since 1 is full
		a.end()
		b2 := r.get("b.test") // and on 1, since 2 is
		if b.lease.ID() != 2 || b2.lease.ID() != 1 {
			t.Fatalf("b on %d and %d", b.lease.ID(), b2.lease.ID())
		}
		b.end()
		b = r.get("b.test")
		if b2.misdirect(); b.lease.ID() != 2 {
			t.Fatalf("b on %d", b.lease.ID())
		}
		b.end()
		if b := r.get("b.test"); b.lease.Shared() {
			t.Errorf("shared on %d after a 421 from the same certificate and address", b.lease.ID())
		}
	})
}

// M3: ten thousand later requests cost no further 421 and no further dial.
func TestM3_TenThousandLaterRequests(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.conns0(t)
		r.get("b.test").misdirect()
		for range 10000 {
			b := r.get("b.test")
			if b.lease.Shared() {
				t.Fatal("shared")
			}
			b.end()
		}
		r.wantDials(2)
	})
}

// M4: concurrent 421s for one host share one dial.
func TestM4_OneDialForConcurrent421s(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test", "c.test")
		r.conns0(t)
		var calls, retries []*call
		for range 20 {
			calls = append(calls, r.get("b.test"), r.get("c.test"))
		}
		for _, c := range calls {
			c.misdirect()
			q := own(c.Host)
			q.Avoid = c.lease.ID()
			retries = append(retries, r.goDo(q))
		}
		time.Sleep(handshake)
		wantServed(t, retries...)
		r.wantDials(3)
		r.wantLookups("b.test", 1)
		for _, c := range retries {
			if c.took != handshake {
				t.Errorf("%s after %v", c.Host, c.took)
			}
		}
	})
}

// M5: a server that always says 421 costs one extra dial, not one per request.
func TestM5_LoopBreaker(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test")
		fresh := r.get("a.test")
		if fresh.lease.Misdirected() {
			t.Error("M1: a fresh connection's 421 is the answer")
		}
		fresh.end()
		for range 10 {
			a := r.get("a.test")
			if a.kind() != coalesce.ReasonOwn || a.misdirect() {
				t.Fatal("a later 421 is retried")
			}
		}
		time.Sleep(10*time.Minute - 1)
		if r.get("a.test").misdirect() {
			t.Error("retried within the TTL")
		}
		time.Sleep(time.Nanosecond)
		a := r.get("a.test")
		if !a.misdirect() {
			t.Error("not retried after the TTL")
		}
		q := own("a.test")
		q.Avoid = a.lease.ID()
		again := r.do(q)
		if again.lease.ID() != 2 {
			t.Errorf("retried on %d", again.lease.ID())
		}
		again.lease.MisdirectedAgain()
		again.end()
		if r.get("a.test").misdirect() {
			t.Error("retried after the retry was in vain")
		}
		r.wantDials(2)
		if s := r.Stats(); s.Misdirected != 15 {
			t.Errorf("Misdirected = %d", s.Misdirected)
		}
		r.Retried()
		if s := r.Stats(); s.Retried != 1 {
			t.Errorf("Retried = %d", s.Retried)
		}
	})
}

// M5 does not concern what is shared: that 421 comes from coalescing.
func TestM5_SharedIsAlwaysRetried(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.do(own("b.test")).misdirect() // fresh
		r.conn(0).die()
		r.conns0(t)
		r.get("a.test").end()
		b := r.get("b.test")
		if !b.lease.Shared() {
			t.Fatal("b is not shared after its own server said 421")
		}
		if !b.misdirect() {
			t.Error("not retried")
		}
	})
}

// M6: a request that needs proof waits for nobody else's connection until its
// host has been answered there.
func TestM6_ProvenOnly(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.maxStreams = 3
		r.conns0(t)
		proven := request("b.test")
		proven.ProvenOnly = true
		b := r.get("b.test") // shared, and not answered yet
		c := r.do(proven)
		if c.lease.Shared() {
			t.Fatal("shared without proof")
		}
		c.end()
		r.conn(1).die()
		b.lease.Answered()
		b.end()
		for range 3 {
			if c := r.do(proven); c.lease.ID() != 1 || !c.lease.Shared() {
				t.Errorf("%s on %d", c.kind(), c.lease.ID())
			}
		}
		// It waits in line there, too.
		r.SetLimits(pool.Limits{MaxConns: 1})
		d := r.goDo(proven)
		wantWaiting(t, d)
		r.conn(0).settings(4)
		wantServed(t, d)
		// The proof ends with the placement.
		d.lease.Misdirected()
		e := r.goDo(proven)
		wantWaiting(t, e)
	})
}

// M6: requests that wait for want of proof come when there is some.
func TestM6_ProofFreesWaiters(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.get("a.test")
		b := r.get("b.test")
		q := request("b.test")
		q.ProvenOnly = true
		c, d := r.goDo(q), r.goDo(q)
		wantWaiting(t, c, d) // there is no room for a connection of b's own
		b.lease.Answered()
		wantServed(t, c, d)
	}, one)
}

func TestMisdirectedAfterTheConnectionsEnd(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.conns0(t)
		b := r.get("b.test")
		r.conn(0).die()
		synctest.Wait()
		b.misdirect()
		if r.Sizes() != (pool.Sizes{}) {
			t.Errorf("%+v", r.Sizes())
		}
		r.get("a.test").end()
		if c := r.get("b.test"); c.lease.Shared() {
			t.Error("forgotten")
		}
	})
}
