package pool_test

import (
	"context"
	"crypto/tls"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/pool"
)

// P10: whatever the pool calls may block, and nobody but who needs the answer
// waits for it.
func TestP10_NothingIsCalledWithTheLockHeld(t *testing.T) {
	for name, tt := range map[string]struct {
		policy func(block func()) coalesce.Policy
		arm    func(r *rig, block func()) // before b.test is asked for
		during func(r *rig)               // what leads to the call, instead of a request for b.test
	}{
		"Resolve": {arm: func(r *rig, block func()) {
			r.set(func() { r.resolve = nil; r.lookupTime = time.Hour })
		}},
		"Dial": {arm: func(r *rig, block func()) {
			r.set(func() {
				r.dns["b.test"] = []netip.Addr{addr2}
				r.onDial = func(context.Context, *fakeDial) { block() }
			})
		}},
		"Reserve": {arm: func(r *rig, block func()) {
			r.reserve = func(c *fakeConn, granted bool) bool {
				if c.host == "a.test" {
					block()
				}
				return granted
			}
		}},
		"Allow": {policy: func(block func()) coalesce.Policy {
			return coalesce.Policy{Allow: func(coalesce.Candidate) bool { block(); return true }}
		}},
		"VerifyConnection": {arm: func(r *rig, block func()) {
			r.CloseIdle()
			r.shape = func(to pool.Target, d *pool.Dialed) {
				if to.Host == "a.test" {
					d.Verify = func(tls.ConnectionState) error { block(); return nil }
				}
			}
			r.get("a.test").end()
			r.get("other.test").end()
		}},
		"Close": {
			arm:    func(r *rig, _ func()) { r.set(func() { r.closing = time.Hour }) },
			during: func(r *rig) { r.CloseIdle() },
		},
		"Allow, for O6": {
			policy: func(block func()) coalesce.Policy {
				return coalesce.Policy{Allow: func(c coalesce.Candidate) bool { block(); return false }}
			},
			during: func(r *rig) {
				r.do(own("b.test")).end()
				a := r.conn(0)
				b := r.conn(len(r.conns) - 1)
				go a.obs.Origin(nil, 0)
				go b.obs.Origin([]string{"https://a.test"}, 0)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			gate := make(chan struct{})
			p := coalesce.Policy{}
			if tt.policy != nil {
				p = tt.policy(func() { <-gate })
			}
			bubble(t, func(t *testing.T, r *rig) {
				gate = make(chan struct{})
				r.shared("a.test", "b.test")
				r.host(leaf("other.test"), addr3, "other.test")
				r.get("a.test").end()
				r.get("other.test").end()
				if tt.arm != nil {
					tt.arm(r, func() { <-gate })
				}
				var b *call
				if tt.during != nil {
					tt.during(r)
					synctest.Wait()
				} else {
					b = r.goGet("b.test")
					wantWaiting(t, b)
				}
				began := time.Now()
				r.Stats()
				r.Conns()
				r.SetLimits(pool.Limits{})
				if tt.during == nil { // CloseIdle ends this one as well
					r.get("other.test").end()
				}
				if d := time.Since(began); d != 0 {
					t.Errorf("others have waited %v", d)
				}
				close(gate)
				r.set(func() { r.lookupTime = 0 })
				if b != nil {
					<-b.done
					if b.err != nil {
						t.Errorf("b: %v", b.err)
					} else {
						b.end()
					}
				}
			}, policy(p))
		})
	}
}
