package pool_test

import (
	"context"
	"crypto/tls"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/pool"
)

// C6, C11: the caller's code runs without the pool's lock.
func TestC11_CallbackMayUseThePool(t *testing.T) {
	var p *rig
	var asked atomic.Int32
	touch := func() {
		asked.Add(1)
		p.Stats()
		p.Conns()
		p.Explain(p.t.Context(), own("b.test"))
		p.SetLimits(pool.Limits{})
		l, err := p.Get(p.t.Context(), request("a.test"))
		if err != nil {
			p.t.Error(err)
			return
		}
		l.Release()
	}
	bubble(t, func(t *testing.T, r *rig) {
		p = r
		r.reserve = func(*fakeConn, bool) bool { return true }
		r.shared("a.test", "b.test")
		r.shape = func(_ pool.Target, d *pool.Dialed) {
			d.Verify = func(tls.ConnectionState) error { touch(); return nil }
		}
		r.get("a.test").end()
		if c := r.get("b.test"); !c.lease.Shared() {
			t.Errorf("b: %s", c.kind())
		}
		if got := asked.Load(); got != 2 {
			t.Errorf("asked %d times, want 2", got)
		}
		r.get("b.test")
		if got := asked.Load(); got != 2 {
			t.Error("asked again about a host that is placed")
		}
	}, policy(coalesce.Policy{Allow: func(coalesce.Candidate) bool { touch(); return true }}))
}

// The connection ends while the caller's code is asked about it.
func TestC11_ConnectionEndsDuringCallback(t *testing.T) {
	var r0 *rig
	bubble(t, func(t *testing.T, r *rig) {
		r0 = r
		r.shared("a.test", "b.test")
		r.get("a.test").end()
		if c := r.get("b.test"); c.kind() != coalesce.ReasonDialed {
			t.Errorf("b: %s, want dialed", c.kind())
		}
	}, policy(coalesce.Policy{Allow: func(coalesce.Candidate) bool { r0.conn(0).die(); return true }}))
}

// A request that is canceled, or whose pool is closed, while the caller's code
// runs.
func TestC11_EndsDuringCallback(t *testing.T) {
	for name, end := range map[string]func(r *rig, b *call){
		"cancel": func(_ *rig, b *call) { b.cancel(context.Canceled) },
		"close":  func(r *rig, _ *call) { r.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			gate := make(chan struct{})
			bubble(t, func(t *testing.T, r *rig) {
				gate = make(chan struct{})
				r.shared("a.test", "b.test")
				r.get("a.test").end()
				b := r.goGet("b.test")
				wantWaiting(t, b)
				end(r, b)
				close(gate)
				<-b.done
				if b.err == nil { // the answer and the end are a draw
					b.end()
				}
				synctest.Wait()
				if s := r.Stats(); s.Streams != 0 || s.Waiting != 0 {
					t.Errorf("left over: %+v", s)
				}
			}, policy(coalesce.Policy{Allow: func(coalesce.Candidate) bool { <-gate; return true }}))
		})
	}
}

// A panic of the caller's code reaches the caller and leaves nothing behind.
func TestC11_PanicInCallback(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.shared("a.test", "b.test")
		r.get("a.test").end()
		func() {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			r.Get(t.Context(), request("b.test"))
		}()
		if s := r.Stats(); s.Waiting != 0 || s.Streams != 0 {
			t.Errorf("left over: %+v", s)
		}
		r.check()
	}, policy(coalesce.Policy{Allow: func(coalesce.Candidate) bool { panic("caller's") }}))
}
