package pool_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/pool"
)

// coldRound closes what is idle, makes first requests for hosts at once, and
// returns how many handshakes' time each of them took.
func (r *rig) coldRound(hosts ...string) (took []int) {
	r.t.Helper()
	r.CloseIdle()
	synctest.Wait()
	calls := r.goGetAll(hosts...)
	for _, c := range calls {
		<-c.done
		if c.err != nil {
			r.t.Fatalf("%s: %v", c.Host, c.err)
		}
		took = append(took, int(c.took/handshake))
	}
	endAll(calls)
	return took
}

// P2: what a host's handshake has shown is remembered when its connection is
// gone, so that those who waited for it in vain do not wait again.
func TestP2_NobodyWaitsInVainTwice(t *testing.T) {
	hosts := names("h%d.test", 20)
	for name, set := range map[string]func(r *rig){
		"twenty certificates": func(r *rig) {
			for _, h := range hosts {
				r.host(leaf(h), addr1, h)
			}
		},
		"C3 unverified": func(r *rig) {
			r.shared(hosts...)
			r.shape = func(_ pool.Target, d *pool.Dialed) { d.TLS.VerifiedChains = nil }
		},
		"C7 client certificate": func(r *rig) {
			r.shared(hosts...)
			r.shape = func(_ pool.Target, d *pool.Dialed) { d.ClientCert = true }
		},
		"a state that cannot be seen": func(r *rig) {
			r.shared(hosts...)
			r.shape = func(_ pool.Target, d *pool.Dialed) { d.TLS = nil }
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				set(r)
				first := append([]int{1}, slices.Repeat([]int{2}, 19)...)
				if got := r.coldRound(hosts...); !slices.Equal(got, first) {
					t.Errorf("first: %v handshakes' time, want %v", got, first)
				}
				slices.Reverse(hosts) // another one dials first
				if got, want := r.coldRound(hosts...), slices.Repeat([]int{1}, 20); !slices.Equal(got, want) {
					t.Errorf("again: %v handshakes' time, want %v", got, want)
				}
				r.wantDials(40)
			})
		})
	}
}

// P2: hosts of two certificates behind one address wait for the one that covers
// them, once it is known which that is.
func TestP2_HostsWaitForTheHandshakeThatCoversThem(t *testing.T) {
	x, y := names("h%d.x.test", 5), names("h%d.y.test", 5)
	bubble(t, func(t *testing.T, r *rig) {
		r.host(leaf("*.x.test"), addr1, x...)
		r.host(leaf("*.y.test"), addr1, y...)
		mixed := make([]string, 0, 10)
		for i := range x {
			mixed = append(mixed, x[i], y[i])
		}
		r.coldRound(mixed...) // those of y wait for x's in vain
		r.wantDials(6)
		for round := range 3 {
			if got, want := r.coldRound(mixed...), slices.Repeat([]int{1}, 10); !slices.Equal(got, want) {
				t.Errorf("round %d: %v handshakes' time, want %v", round, got, want)
			}
			r.wantDials(6 + 2*(round+1))
		}
	})
}

// P2: of two handshakes under way, one known to cover the host is waited for
// rather than one of which nothing is known.
func TestP2_AKnownHandshakeIsPreferred(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.host(leaf("unknown.test"), addr1, "unknown.test")
		r.get("a.test").end()
		r.CloseIdle()
		synctest.Wait()
		r.set(func() { r.held = true })
		calls := []*call{r.goDo(own("unknown.test")), r.goDo(own("a.test")), r.goGet("b.test")}
		wantWaiting(t, calls...)
		r.lastDial().finish(nil)
		wantServed(t, calls[1:]...)
		if b := calls[2]; b.kind() != coalesce.ReasonJoined || b.lease.ConnHost() != "a.test" {
			t.Errorf("b: %s of %s", b.kind(), b.lease.ConnHost())
		}
		r.nthDial(1).finish(nil)
		wantServed(t, calls[0])
	})
}

// P2: a certificate that has come to cover more is met by the next dial, and
// then waited for.
func TestP2_ACertificateThatChanges(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.host(leaf("a.test"), addr1, "a.test")
		r.host(leaf("b.test"), addr1, "b.test")
		r.coldRound("a.test", "b.test")
		r.shared("a.test", "b.test")
		if got, want := r.coldRound("a.test", "b.test"), []int{1, 1}; !slices.Equal(got, want) {
			t.Errorf("%v handshakes' time, want %v", got, want)
		}
		r.wantDials(4) // b did not wait
		r.coldRound("a.test", "b.test")
		r.wantDials(5)
	})
}

// C1: what one partition has met does not show in another.
func TestC1_ShownCertificatesOfAPartition(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.host(leaf("a.test"), addr1, "a.test")
		r.host(leaf("b.test"), addr1, "b.test")
		r.coldRound("a.test", "b.test")
		began := time.Now()
		var calls []*call
		for _, h := range []string{"a.test", "b.test"} {
			q := request(h)
			q.Partition = "p"
			calls = append(calls, r.goDo(q))
		}
		<-calls[1].done
		if got := time.Since(began); got != 2*handshake {
			t.Errorf("b waited %v, want two handshakes", got)
		}
	})
}

// P2: the memory is bounded in hosts and in names.
func TestP2_ShownIsBounded(t *testing.T) {
	r := newRig(t)
	defer r.Close()
	r.handshake = 0
	for i := range 1500 {
		host := fmt.Sprintf("h0.c%d.test", i)
		sans := []string{host}
		if i%25 == 0 {
			sans = names(fmt.Sprintf("h%%d.c%d.test", i), 5000)
		}
		r.host(leaf(sans...), addr1, host)
		l, err := r.Get(t.Context(), own(host))
		if err != nil {
			t.Fatal(err)
		}
		l.Release()
		hosts, total, counted := r.Shown()
		if hosts > 1024 || total > 128<<10 || total != counted {
			t.Fatalf("after %d dials: %d hosts, %d names, counted as %d", i+1, hosts, total, counted)
		}
	}
	if hosts, _, _ := r.Shown(); hosts < 200 {
		t.Errorf("%d hosts left", hosts)
	}
	last := fmt.Sprintf("h0.c%d.test", 1499)
	for range 3 { // the same again replaces what was there
		r.CloseIdle()
		if _, err := r.Get(t.Context(), own(last)); err != nil {
			t.Fatal(err)
		}
	}
	if _, total, counted := r.Shown(); total != counted {
		t.Errorf("%d names, counted as %d", total, counted)
	}
}
