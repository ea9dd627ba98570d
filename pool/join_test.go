package pool_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/pool"
)

// P2: two hundred first requests to two hundred covered hosts make one
// handshake.
func TestP2_OneHandshakeFor200Hosts(t *testing.T) {
	hosts := names("h%d.test", 200)
	for _, tt := range []struct {
		name      string
		handshake time.Duration
		stagger   time.Duration
	}{
		{"at once", handshake, 0},
		{"slow handshake", 299 * time.Millisecond, 0},
		{"no time at all", 0, 0},
		{"arriving during the handshake", 250 * time.Millisecond, time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.shared(hosts...)
				r.handshake = tt.handshake
				r.maxStreams = 1000
				var calls []*call
				for _, h := range hosts {
					calls = append(calls, r.goGet(h))
					time.Sleep(tt.stagger)
				}
				for i, c := range calls {
					<-c.done
					if want := max(tt.handshake-time.Duration(i)*tt.stagger, 0); c.took != want {
						t.Errorf("%s waited %v, want %v", c.Host, c.took, want)
					}
				}
				wantServed(t, calls...)
				r.wantDials(1)
				s := r.Stats()
				if s.Shared != 199 || s.Streams != 200 || s.Conns != 1 {
					t.Errorf("stats %+v", s)
				}
				if tt.handshake > 0 && s.Joined != 199 {
					t.Errorf("%d joined", s.Joined)
				}
				endAll(calls)
				if s := r.Stats(); s.Streams != 0 || s.Idle != 1 {
					t.Errorf("stats at the end %+v", s)
				}
			})
		})
	}
}

// P2: hosts that SETTINGS come late for share nevertheless.
func TestP2_OneHandshakeWithLateSettings(t *testing.T) {
	hosts := names("h%d.test", 50)
	bubble(t, func(t *testing.T, r *rig) {
		r.shared(hosts...)
		r.noSettings = true
		calls := r.goGetAll(hosts...)
		time.Sleep(handshake)
		wantServed(t, calls[0])
		wantWaiting(t, calls[1:]...)
		time.Sleep(handshake)
		r.conn(0).settings(100)
		wantServed(t, calls...)
		r.wantDials(1)
	})
}

func TestP2_JoinWaitIsExact(t *testing.T) {
	for _, tt := range []struct {
		wait, want time.Duration
	}{
		{0, 300 * time.Millisecond},
		{time.Second, time.Second},
		{-1, 0},
	} {
		t.Run(fmt.Sprint(tt.wait), func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.shared("a.test", "b.test")
				r.held = true
				began := time.Now()
				a, b := r.goGet("a.test"), r.goGet("b.test")
				wantWaiting(t, a, b)
				time.Sleep(max(tt.want-1, 0))
				synctest.Wait()
				if got := r.dialed(); tt.want > 0 && !slices.Equal(got, []string{"a.test"}) {
					t.Fatalf("dials after %v: %q", time.Since(began), got)
				}
				time.Sleep(time.Nanosecond)
				r.wantDials(2)
				if d := r.lastDial(); tt.want > 0 && d.Host != "b.test" || d.began.Sub(began) != tt.want {
					t.Errorf("%s dialed after %v, want %v", d.Host, d.began.Sub(began), tt.want)
				}
				// The first handshake ends after all: b need not wait for its own.
				r.nthDial(0).finish(nil)
				synctest.Wait()
				if tt.want > 0 {
					wantServed(t, a, b)
					if b.kind() != coalesce.ReasonShared {
						t.Errorf("b: %s", b.kind())
					}
				}
			}, policy(coalesce.Policy{JoinWait: tt.wait}))
		})
	}
}

// P2: a host joins once; twenty hosts with twenty certificates behind one
// address take two handshakes' time.
func TestP2_TwentyCertificatesTwoHandshakesTime(t *testing.T) {
	hosts := names("h%d.test", 20)
	bubble(t, func(t *testing.T, r *rig) {
		for _, h := range hosts {
			r.host(leaf(h), addr1, h)
		}
		calls := r.goGetAll(hosts...)
		wantTwoHandshakes(t, r, calls)
	})
}

// P2: the same where the certificate covers them all and other rules keep
// them apart.
func TestP2_JoinsOnceWhateverRuleRefuses(t *testing.T) {
	hosts := names("h%d.test", 20)
	for name, tt := range map[string]struct {
		policy coalesce.Policy
		shape  func(pool.Target, *pool.Dialed)
		onDial func(context.Context, *fakeDial)
	}{
		"C3 unverified":         {shape: func(_ pool.Target, d *pool.Dialed) { d.TLS.VerifiedChains = nil }},
		"C7 client certificate": {shape: func(_ pool.Target, d *pool.Dialed) { d.ClientCert = true }},
		"C8 fence":              {onDial: func(_ context.Context, d *fakeDial) { d.obs.Origin(nil, 0) }},
		"C9 another address":    {shape: func(_ pool.Target, d *pool.Dialed) { d.RemoteAddr = netip.AddrPortFrom(addr3, 443) }},
		"C11 vetoed":            {policy: coalesce.Policy{Allow: func(coalesce.Candidate) bool { return false }}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.shared(hosts...)
				r.shape, r.onDial = tt.shape, tt.onDial
				wantTwoHandshakes(t, r, r.goGetAll(hosts...))
			}, policy(tt.policy))
		})
	}
}

func wantTwoHandshakes(t *testing.T, r *rig, calls []*call) {
	t.Helper()
	for i, c := range calls {
		<-c.done
		want := 2 * handshake
		if i == 0 {
			want = handshake
		}
		if c.err != nil || c.took != want || c.kind() != coalesce.ReasonDialed {
			t.Errorf("%s: %s after %v, %v; want dialed after %v", c.Host, c.kind(), c.took, c.err, want)
		}
	}
	r.wantDials(len(calls))
}

// P2: a dial that is joined and fails is nobody's error but its host's.
func TestP2_JoinedDialFails(t *testing.T) {
	hosts := names("h%d.test", 10)
	bubble(t, func(t *testing.T, r *rig) {
		r.shared(hosts...)
		r.dialErr[hosts[0]] = errRefused
		calls := r.goGetAll(hosts...)
		for i, c := range calls {
			<-c.done
			switch {
			case i == 0:
				if !errors.Is(c.err, errRefused) || c.took != handshake {
					t.Errorf("the dialing host: %v after %v", c.err, c.took)
				}
			case c.err != nil || c.took != 2*handshake:
				t.Errorf("%s: %s after %v, %v", c.Host, c.kind(), c.took, c.err)
			}
		}
		if s := r.Stats(); s.DialErrors != 1 {
			t.Errorf("DialErrors = %d", s.DialErrors)
		}
	})
}

// P2, P4: a server with 10 streams a connection gets exactly as many
// connections as 200 long requests need.
func TestP4_TwentyConnectionsFor200LongRequests(t *testing.T) {
	for name, hosts := range map[string][]string{
		"one host":  slices.Repeat([]string{"h.test"}, 200),
		"200 hosts": names("h%d.test", 200),
	} {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/late SETTINGS %t", name, late), func(t *testing.T) {
				bubble(t, func(t *testing.T, r *rig) {
					r.shared(hosts...)
					r.maxStreams = 10
					r.noSettings = late
					calls := r.goGetAll(hosts...)
					for range 20 {
						time.Sleep(handshake)
						synctest.Wait()
						if late {
							for _, c := range r.open() {
								if c.limit == 100 {
									c.settings(10)
								}
							}
						}
					}
					wantServed(t, calls...)
					r.wantDials(20)
					for _, c := range r.open() {
						if c.inUse() != 10 {
							t.Errorf("%d streams on %s", c.inUse(), c.host)
						}
					}
					endAll(calls)
				})
			})
		}
	}
}

// P2, M6: a request that must not go on another host's connection, or not on an
// unproven one, does not wait for another host's handshake.
func TestP2_ProvenOnlyAndOwnDoNotJoin(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test", "c.test")
		r.held = true
		b, c := own("b.test"), request("c.test")
		c.ProvenOnly = true
		calls := []*call{r.goGet("a.test"), r.goDo(b), r.goDo(c)}
		wantWaiting(t, calls...)
		r.wantDials(3)
		for i, d := range slices.Clone(r.dials) {
			wantWaiting(t, calls[i:]...)
			d.finish(nil)
			wantServed(t, calls[i])
		}
		for _, c := range calls {
			if c.lease.Shared() {
				t.Errorf("%s shares", c.Host)
			}
		}
	})
}
