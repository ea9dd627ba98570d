package pool_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/pool"
)

// call is one request: a Get in a goroutine of its own.
type call struct {
	pool.Request
	rig    *rig
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when Get has returned; what follows is set then
	lease  pool.Lease
	err    error
	took   time.Duration
}

// request returns what is asked for host.
func request(host string) pool.Request { return pool.Request{Host: host, Port: 443} }

// goGet begins a request for host.
func (r *rig) goGet(host string) *call { return r.goDo(request(host)) }

func own(host string) pool.Request {
	q := request(host)
	q.Own = true
	return q
}

func (r *rig) goDo(q pool.Request) *call {
	ctx, cancel := context.WithCancelCause(context.Background())
	c := &call{Request: q, rig: r, cancel: cancel, done: make(chan struct{})}
	began := time.Now()
	go func() {
		defer close(c.done)
		defer cancel(nil)
		c.lease, c.err = r.Get(ctx, q)
		c.took = time.Since(began)
	}()
	synctest.Wait() // so that requests stand in line in the order of their calls
	return c
}

// get does a request as far as Get and demands that it succeeds.
func (r *rig) get(host string) *call { r.t.Helper(); return r.do(request(host)) }

func (r *rig) do(q pool.Request) *call {
	r.t.Helper()
	c := r.goDo(q)
	<-c.done
	if c.err != nil {
		r.t.Fatalf("Get(%s): %v", q.Host, c.err)
	}
	return c
}

// returned reports, once all is quiet, whether Get has returned.
func (c *call) returned() bool {
	synctest.Wait()
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// wantWaiting demands that all of calls wait.
func wantWaiting(t *testing.T, calls ...*call) {
	t.Helper()
	for i, c := range calls {
		if c.returned() {
			t.Fatalf("call %d (%s) does not wait: %v, err %v", i, c.Host, c.kind(), c.err)
		}
	}
}

// wantServed demands that all of calls have been given a connection.
func wantServed(t *testing.T, calls ...*call) {
	t.Helper()
	for i, c := range calls {
		if !c.returned() {
			t.Fatalf("call %d (%s) still waits", i, c.Host)
		}
		if c.err != nil {
			t.Fatalf("call %d (%s): %v", i, c.Host, c.err)
		}
	}
}

func (c *call) kind() coalesce.Reason {
	select {
	case <-c.done:
	default:
		return "waiting"
	}
	if c.err != nil {
		return "failed"
	}
	return c.lease.Decision().Reason
}

// conn returns the connection that the call was given.
func (c *call) conn() *fakeConn { return c.lease.Conn().(*fakeConn) }

// end ends the request: the engine's stream first, as in transport.
func (c *call) end() {
	c.rig.t.Helper()
	<-c.done
	if c.err != nil {
		c.rig.t.Fatalf("ending a request for %s that failed: %v", c.Host, c.err)
	}
	f := c.conn()
	f.mu.Lock()
	f.streams--
	f.mu.Unlock()
	c.lease.Release()
}

func endAll(calls []*call) {
	for _, c := range calls {
		c.end()
	}
}

// goGetAll begins one request for each of hosts.
func (r *rig) goGetAll(hosts ...string) []*call {
	var calls []*call
	for _, h := range hosts {
		calls = append(calls, r.goGet(h))
	}
	return calls
}
