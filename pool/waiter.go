package pool

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

// waiter is a request that could not be served at once. Its goroutine receives
// from ch; all else is guarded by Pool.mu.
type waiter struct {
	Request
	ctx  context.Context // its values go to the look-up and the dial; its end does not
	host *host
	seq  uint64 // place in the line: lower is served first

	ch   chan message // capacity 1
	done bool         // a lease or an error was sent, or nobody receives any more

	lookup    *lookup      // the look-up it waits for
	dial      *dial        // the handshake it waits for
	joinTimer *time.Timer  // bounds the wait for another host's handshake
	noJoin    bool         // it has waited for another host's handshake already
	came      *entry       // the connection that it waited for, once dialed
	looked    bool         // a look-up has answered since it began to wait
	addrs     []netip.Addr // that would be dialed for it, were there room
	queued    bool         // it is in Pool.queue

	consulting bool                       // its goroutine asks the caller's code about a connection
	answers    map[uint64]coalesce.Reason // what that code said, by connection

	registered []*entry // connections whose waiters it is among
	mark       uint64   // of its last routing: connections with the same mark are in registered
}

// message is what a waiter's goroutine is told: one of the first three fields
// is set.
type message struct {
	lease   Lease  // sent last
	err     error  // sent last
	consult *entry // ask the caller's code about this connection, then route again

	told *int // with a dial's err: how many it was sent to who have not given up
}

// ask returns the question that the rules are asked on the waiter's behalf.
func (w *waiter) ask(addrs []netip.Addr) coalesce.Request {
	return coalesce.Request{Host: w.Host, Port: w.Port, Partition: w.Partition, Addrs: addrs, Own: w.Own || w.Fronts}
}

// answer keeps what the caller's code said about e.
func (w *waiter) answer(e *entry, r coalesce.Reason) {
	if w.answers == nil {
		w.answers = make(map[uint64]coalesce.Reason)
	}
	w.answers[e.id] = r
}

// hopes reports whether a connection that the waiter is in line for is merely full.
func (w *waiter) hopes() bool {
	return slices.ContainsFunc(w.registered, func(e *entry) bool { return !e.stalled })
}

// leaveAll takes the waiter off the connections that it is registered with.
func (w *waiter) leaveAll() {
	for _, e := range w.registered {
		e.leave(w)
	}
	w.registered = nil
}

// unregister undoes register, on the waiter's side.
func (w *waiter) unregister(e *entry) {
	if i := slices.Index(w.registered, e); i >= 0 {
		w.registered = slices.Delete(w.registered, i, i+1)
	}
}

// register puts the waiter in line for a free stream of e.
func (w *waiter) register(e *entry) {
	if e.mark != w.mark {
		e.mark = w.mark
		w.registered = append(w.registered, e)
		e.waiters.add(w)
	}
}
