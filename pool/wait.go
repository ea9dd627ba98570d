package pool

import (
	"context"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

// The engine may grant fewer streams than we count. It lags behind for a
// moment, as when SETTINGS raise the limit, which we see first; or the stream
// of a request that was canceled stays taken until the server has answered a
// PING. Nothing tells when it is given back, so the connection is asked again
// after a while, and counts as full when it has refused more than
// refusalPatience times in a row.
const (
	firstRefusalWait = time.Millisecond
	lastRefusalWait  = 256 * time.Millisecond
	refusalPatience  = 5
)

func (p *Pool) newWaiterLocked(ctx context.Context, r *Request) *waiter {
	p.nextSeq++
	w := &waiter{Request: *r, ctx: ctx, seq: p.nextSeq, ch: make(chan message, 1)}
	p.enlistLocked(w)
	return w
}

// enlistLocked puts w in line by its seq.
func (p *Pool) enlistLocked(w *waiter) {
	w.host = p.hostForLocked(w.key())
	w.host.waiting++
	p.waiting.add(w)
}

// wait blocks until w has a reserved stream or an error, or gives up.
func (p *Pool) wait(ctx context.Context, w *waiter) (Lease, error) {
	for {
		select {
		case m := <-w.ch:
			switch {
			case m.err != nil:
				return Lease{}, m.err
			case m.consult != nil:
				p.consult(w, m.consult)
			case m.lease.e.conn.Reserve():
				return m.lease, nil
			default:
				w = p.refused(ctx, m.lease, &w.Request, w)
			}
		case <-ctx.Done():
			return Lease{}, p.giveUp(w, context.Cause(ctx))
		case <-w.Cancel:
			return Lease{}, p.giveUp(w, ErrCanceled)
		}
	}
}

// giveUp takes w out of the line, with what it may have been given meanwhile.
func (p *Pool) giveUp(w *waiter, cause error) error {
	if err := p.withdraw(w); err != nil {
		abandon(err)
	}
	return cause
}

// withdraw is giveUp's part under the lock; it returns the error that w was
// sent, if neither w nor another will see it.
func (p *Pool) withdraw(w *waiter) error {
	p.mu.Lock()
	defer p.unlock()
	if !w.done {
		p.givenUpLocked(w)
		p.finishLocked(w)
		return nil
	}
	m := <-w.ch
	if m.lease.e != nil {
		p.untakeLocked(&m.lease)
	}
	if m.told == nil {
		return nil
	}
	if *m.told--; *m.told > 0 {
		return nil // somebody else sees it
	}
	return m.err
}

// refused returns the lease of a stream that the connection did not grant, and
// puts the request back in line, in w's place if it had one.
func (p *Pool) refused(ctx context.Context, l Lease, r *Request, w *waiter) *waiter {
	p.mu.Lock()
	defer p.unlock()
	e := l.e
	first := !e.refused // of those who were handed a stream at the same time
	e.refused = true    // before the stream is returned, or it would be handed on
	p.untakeLocked(&l)
	if w == nil {
		w = p.newWaiterLocked(ctx, r)
	} else {
		w.done = false
		p.enlistLocked(w)
	}
	if first && e.state == stateReady {
		p.refusedLocked(e)
	}
	switch {
	case p.closed:
		p.failLocked(w, ErrClosed) // Close has failed the others
	case e.state != stateReady && e == w.came && e.key == w.host.key:
		p.failLocked(w, e.unusable()) // or it would dial for ever
	}
	p.queueLocked(w)
	return w
}

// refusedLocked lets e rest, and retires it when it refuses without a stream
// under way: then it is not full but finished.
func (p *Pool) refusedLocked(e *entry) {
	pause := min(firstRefusalWait<<min(e.refusals, 16), lastRefusalWait)
	e.refusals++
	if e.streams == 0 && pause == lastRefusalWait {
		p.setStateLocked(e, stateDraining)
		p.freedLocked(e)
		return
	}
	if e.refusals > refusalPatience {
		p.queueRestLocked(e)
	}
	e.rest.set(p, pause, func() {
		e.refused = false
		p.freedLocked(e)
		p.queueRestLocked(e)
	})
}

// deliverLocked ends w's wait with a lease.
func (p *Pool) deliverLocked(w *waiter, l Lease) {
	p.finishLocked(w)
	w.ch <- message{lease: l}
}

// failLocked ends w's wait with an error.
func (p *Pool) failLocked(w *waiter, err error) {
	if !w.done {
		p.finishLocked(w)
		w.ch <- message{err: err}
	}
}

// tellLocked ends w's wait with the error of a dial, and counts it in told.
func (p *Pool) tellLocked(w *waiter, err error, told *int) {
	*told++
	p.finishLocked(w)
	w.ch <- message{err: err, told: told}
}

// finishLocked takes w off everything that could still serve it.
func (p *Pool) finishLocked(w *waiter) {
	w.done = true
	if w.consulting {
		select { // the question is void
		case <-w.ch:
		default:
		}
		w.consulting = false
	}
	p.leaveDialLocked(w)
	w.leaveAll()
	p.waiting.remove(w)
	p.starved.remove(w)
	w.host.crowded.remove(w)
	p.leaveLookupLocked(w)
	w.host.waiting--
	p.forgetLocked(w.host)
}

// consult asks the caller's code about a connection on w's behalf, without
// the lock.
func (p *Pool) consult(w *waiter, e *entry) {
	p.mu.Lock()
	facts := e.facts
	p.mu.Unlock()
	ask := w.ask(nil)
	answered := false
	defer func() {
		if !answered { // it panics, or ends the goroutine
			p.giveUp(w, nil)
		}
	}()
	reason := p.cfg.Policy.Consult(&facts, &ask)
	answered = true
	p.mu.Lock()
	defer p.unlock()
	w.answer(e, reason)
	if e == w.came && reason != coalesce.ReasonShared {
		w.noJoin = true // it has waited in vain, which is enough (P2)
	}
	w.consulting = false
	p.queueLocked(w)
}
