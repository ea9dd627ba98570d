package pool_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/pool"
)

// Explain looks up what it needs, keeps nothing and opens nothing.
func TestExplainChangesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.get("a.test").end()
		for range 2 {
			d, err := r.Explain(t.Context(), request("b.test"))
			if err != nil || !d.Shared || !d.Reused || d.Conn != 1 || d.Reason != coalesce.ReasonShared {
				t.Errorf("%+v, %v", d, err)
			}
		}
		r.wantLookups("b.test", 2)
		d, err := r.Explain(t.Context(), own("b.test"))
		if err != nil || d.Shared || d.Conn != 0 || d.Reason != coalesce.ReasonDialed {
			t.Errorf("%+v, %v", d, err)
		}
		r.wantLookups("b.test", 2) // sharing is not asked for
		if _, err := r.Explain(t.Context(), request("nx.test")); !errors.Is(err, errNoHost) {
			t.Error(err)
		}
		r.conn(0).settings(0)
		if d, _ := r.Explain(t.Context(), request("b.test")); d.Considered[0].Reason != coalesce.ReasonFull {
			t.Errorf("%+v", d)
		}
		r.wantDials(1)
		if got := r.Conns()[0].Hosts; !slices.Equal(got, []string{"a.test"}) {
			t.Errorf("hosts %q", got)
		}
		r.Close()
		if _, err := r.Explain(t.Context(), request("b.test")); err != pool.ErrClosed {
			t.Error(err)
		}
	})
}

// reasons returns what is said of the connections, oldest first.
func reasons(d coalesce.Decision) (rs []coalesce.Reason) {
	for _, v := range d.Considered {
		rs = append(rs, v.Reason)
	}
	return rs
}

func wantReasons(t *testing.T, d coalesce.Decision, want ...coalesce.Reason) {
	t.Helper()
	if diff := cmp.Diff(want, reasons(d)); diff != "" {
		t.Errorf("considered (-want +got):\n%s", diff)
	}
}

// C6, C11: what is told of a connection that was not asked about on the way, as
// an older one did, is what the caller's code says all the same.
func TestC11_ConsideredIsNotAGuess(t *testing.T) {
	allow := func(c coalesce.Candidate) bool { return c.ConnHost != "c.test" || c.Host == "c.test" }
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test", "c.test")
		r.get("a.test").end()
		r.do(own("c.test")).end()
		q := request("b.test")
		q.Explain = true
		first := r.do(q) // found with a's connection
		wantReasons(t, first.lease.Decision(), coalesce.ReasonShared, coalesce.ReasonVetoed)
		again := r.do(q) // placed by now
		wantReasons(t, again.lease.Decision(), coalesce.ReasonShared, coalesce.ReasonVetoed)
		d, err := r.Explain(t.Context(), request("b.test"))
		if err != nil {
			t.Fatal(err)
		}
		wantReasons(t, d, coalesce.ReasonShared, coalesce.ReasonVetoed)
	}, policy(coalesce.Policy{Allow: allow}))
}

// M6: a connection that only a request with another body could use.
func TestM6_ConsideredSaysUnproven(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.get("a.test").end()
		q := request("b.test")
		q.Explain, q.ProvenOnly = true, true
		b := r.do(q)
		if b.kind() != coalesce.ReasonDialed {
			t.Errorf("b: %s", b.kind())
		}
		wantReasons(t, b.lease.Decision(), coalesce.ReasonUnproven)
		b.end()
		r.conn(1).die()
		plain := r.get("b.test")
		plain.lease.Answered()
		plain.end()
		b = r.do(q)
		wantReasons(t, b.lease.Decision(), coalesce.ReasonShared)
	})
}

// M1: the connection that has answered 421 is not told to be usable, be it the
// host's own.
func TestM1_ConsideredSaysMisdirected(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test")
		a := r.get("a.test")
		a.end()
		again := r.get("a.test")
		if !again.misdirect() {
			t.Fatal("not retried")
		}
		q := request("a.test")
		q.Explain, q.Avoid = true, again.lease.ID()
		retry := r.do(q)
		if retry.kind() != coalesce.ReasonDialed {
			t.Errorf("retry: %s", retry.kind())
		}
		wantReasons(t, retry.lease.Decision(), coalesce.ReasonMisdirected)
	})
}

// P2: where a request would wait for another host's handshake, Explain says so.
func TestP2_ExplainSaysJoined(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test", "c.test")
		r.dns["b.test"] = []netip.Addr{netip.AddrFrom16(addr1.As16())} // the same address
		r.held = true
		a := r.goGet("a.test")
		want := coalesce.Decision{Host: "b.test", ConnHost: "a.test", Shared: true, Reason: coalesce.ReasonJoined, Considered: []coalesce.Verdict{}}
		for name, tt := range map[string]struct {
			q    pool.Request
			want coalesce.Decision
		}{
			"another host": {request("b.test"), want},
			"own only":     {own("b.test"), coalesce.Decision{Host: "b.test", Reason: coalesce.ReasonDialed, Considered: []coalesce.Verdict{}}},
			"the host":     {request("a.test"), coalesce.Decision{Host: "a.test", Reason: coalesce.ReasonDialed, Considered: []coalesce.Verdict{}}},
		} {
			got, err := r.Explain(t.Context(), tt.q)
			if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
				t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
			}
		}
		b, mine := r.goGet("b.test"), r.goDo(own("c.test"))
		wantWaiting(t, a, b, mine)
		if d, err := r.Explain(t.Context(), request("c.test")); err != nil || d.Reason != coalesce.ReasonDialed {
			t.Errorf("c, which is being dialed: %+v, %v", d, err)
		}
		r.nthDial(0).finish(nil)
		wantServed(t, a, b)
		r.nthDial(1).finish(nil)
		wantServed(t, mine)
		if b.kind() != coalesce.ReasonJoined || b.lease.ConnHost() != "a.test" {
			t.Errorf("b: %s of %s", b.kind(), b.lease.ConnHost())
		}
	})
}

// A look-up that fails is told only where the request would fail with it.
func TestExplainWithoutDNS(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test", "c.test")
		r.get("a.test").end()
		r.get("b.test").end()
		time.Sleep(10 * time.Minute)
		r.set(func() { r.lookupErr = errNoHost })
		for host, want := range map[string]coalesce.Reason{"a.test": coalesce.ReasonOwn, "b.test": coalesce.ReasonShared} {
			d, err := r.Explain(t.Context(), request(host))
			if err != nil || d.Reason != want || d.Conn != 1 {
				t.Errorf("%s: %+v, %v; want %s", host, d, err, want)
			}
		}
		if _, err := r.Explain(t.Context(), request("c.test")); !errors.Is(err, errNoHost) {
			t.Errorf("c: %v", err)
		}
	})
}

// O6: a retired connection is told to be draining.
func TestO6_ConsideredSaysDraining(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a, c := r.pair(nil)
		held := r.get("a.test")
		a.lists("b.test")
		c.lists("a.test", "b.test")
		d, err := r.Explain(t.Context(), request("b.test"))
		if err != nil || d.Conn != 2 {
			t.Errorf("%+v, %v", d, err)
		}
		wantReasons(t, d, coalesce.ReasonDraining, coalesce.ReasonShared)
		held.end()
		synctest.Wait()
	})
}

// P2: a host that has waited in vain for a handshake at its address does not
// wait again.
func TestP2_ExplainKnowsWhoDoesNotJoin(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "c.test")
		r.host(leaf("b.test"), addr1, "b.test")
		r.held, r.maxStreams = true, 1
		a, b := r.goGet("a.test"), r.goGet("b.test")
		r.nthDial(0).finish(nil)
		wantServed(t, a)
		r.lastDial().finish(nil)
		wantServed(t, b) // on its own connection, which is full now
		c := r.goDo(own("c.test"))
		if d, err := r.Explain(t.Context(), request("b.test")); err != nil || d.Reason != coalesce.ReasonDialed {
			t.Errorf("b: %+v, %v", d, err)
		}
		again := r.goGet("b.test")
		r.wantDials(4)
		r.nthDial(2).finish(nil)
		wantServed(t, c)
		r.nthDial(3).finish(nil)
		wantServed(t, again)
	})
}

// A host stays where it was placed, also when an older connection would do.
func TestP1_ExplainPrefersThePlacement(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a, c := r.pair(nil)
		a.settings(0)
		r.get("b.test").end()
		a.settings(100)
		if d, err := r.Explain(t.Context(), request("c.test")); err != nil || d.Conn != 2 || d.Reason != coalesce.ReasonOwn {
			t.Errorf("c, which has its own: %+v, %v", d, err)
		}
		d, err := r.Explain(t.Context(), request("b.test"))
		if b := r.get("b.test"); err != nil || b.conn() != c || d.Conn != b.lease.ID() {
			t.Errorf("b went on %d; Explain said %+v, %v", b.lease.ID(), d, err)
		}
	})
}

// C8: before the server's first frames, a connection is there for its own host.
func TestC8_ExplainBeforeTheFirstFrames(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.noSettings = true
		r.get("a.test").end()
		for host, want := range map[string]coalesce.Reason{"a.test": coalesce.ReasonOwn, "b.test": coalesce.ReasonFull} {
			d, err := r.Explain(t.Context(), request(host))
			if err != nil {
				t.Fatal(err)
			}
			wantReasons(t, d, want)
		}
	})
}
