package pool

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

const (
	// slowAfter is how long a dial or a look-up must have taken for a request
	// that gives up to make those who come later begin another one: what hangs
	// is not to hold up its host for ever.
	slowAfter = time.Second
	// unwantedFor is how long a dial goes on with nobody waiting for it.
	unwantedFor = 30 * time.Second
)

// dialRest is how long a host whose connections are merely full is not dialed
// again after a dial has failed.
const dialRest = time.Second

// dial is a connection being dialed for a host. It outlives the requests that
// wait for it (P3).
type dial struct {
	host   *host
	entry  *entry
	addrs  []netip.Addr
	begun  time.Time
	load   int         // waiters that count on it
	room   int         // waiters that it can be expected to serve; 0: any number
	slow   bool        // a waiter has given it up: later ones have another try
	ending bool        // it was canceled
	done   bool        // it has ended
	limit  *time.Timer // ends it, while nobody waits for it
	cancel context.CancelFunc
}

// takes reports whether one more waiter may count on the dial.
func (d *dial) takes() bool { return !d.slow && !d.ending && (d.room == 0 || d.load < d.room) }

// dialLocked has a connection dialed for w's host, if the limits permit; else
// w waits for room.
func (p *Pool) dialLocked(w *waiter, addrs []netip.Addr, room int) {
	h := w.host
	if m := p.limits.MaxConnsPerHost; m > 0 && h.count >= m {
		h.crowded.add(w)
		p.starved.remove(w)
		p.drainAvoidedLocked(w)
		return
	}
	if m := p.limits.MaxConns; m > 0 && (p.total >= m || p.turn.next != w && p.starved.before(w)) {
		w.addrs = addrs
		p.starved.add(w)
		h.crowded.remove(w)
		p.makeRoomLocked()
		return
	}
	d := &dial{host: h, addrs: addrs, begun: time.Now(), room: room}
	d.entry = &entry{pool: p, key: h.key}
	d.entry.origins.Init(h.key.name, h.key.port)
	h.dials = append(h.dials, d)
	h.count++
	p.total++
	p.stats.Dials++
	for b := range d.buckets() {
		p.dialing[b] = append(p.dialing[b], d)
	}
	p.waitForLocked(w, d)
	p.gatherLocked(d)
	p.crowdLocked(h)
	p.makeRoomLocked() // this may have been meant for another one

	// The dial is not w's alone: others may come to wait for it, and it is of
	// use to requests yet to come, as in net/http. So only Close and
	// CloseIdle end it.
	lent := &lentValues{Context: context.Background()}
	lent.from.Store(&w.ctx)
	ctx, cancel := context.WithCancel(lent)
	d.cancel = cancel
	d.entry.cancel = cancel
	p.goLocked(func() {
		defer context.AfterFunc(p.ctx, cancel)()
		defer lent.from.Store(nil)
		c, err := p.cfg.Dial(ctx, Target{Host: h.key.name, Port: h.key.port, Partition: h.key.partition, Addrs: addrs}, observer{d.entry})
		p.dialed(d, c, err)
	})
}

// lentValues is a context with the values of another one, for a while: what a
// request carries is not to live as long as the connection that it dialed.
type lentValues struct {
	context.Context
	from atomic.Pointer[context.Context]
}

func (c *lentValues) Value(key any) any {
	if from := c.from.Load(); from != nil {
		return (*from).Value(key)
	}
	return nil
}

// unwantedLocked notes that nobody waits for d any more. It goes on, as in
// net/http, since later requests may have use for its connection; but not for
// ever, and not in the way of others.
func (p *Pool) unwantedLocked(d *dial) {
	if d.slow || p.shortLocked() {
		d.end()
		return
	}
	p.unwanted[d] = struct{}{}
	d.limit = time.AfterFunc(unwantedFor, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if _, ok := p.unwanted[d]; ok {
			delete(p.unwanted, d)
			d.end()
		}
	})
}

// wantedLocked undoes unwantedLocked, for a dial that is waited for again or has
// ended. The timer would keep the pool, and all that it holds.
func (p *Pool) wantedLocked(d *dial) {
	if _, ok := p.unwanted[d]; ok {
		delete(p.unwanted, d)
		d.limit.Stop()
	}
}

// makeRoomLocked gives up a connection for those who wait for room, or a dial. Its
// end, when it comes, makes the room.
func (p *Pool) makeRoomLocked() {
	if p.shortLocked() && !p.evictLocked() {
		p.endUnwantedLocked()
	}
}

// endUnwantedLocked ends a dial that nobody waits for, to make room.
func (p *Pool) endUnwantedLocked() {
	for d := range p.unwanted {
		p.wantedLocked(d)
		d.end()
		return
	}
}

// end cancels the dial. Its place is free when it has returned.
func (d *dial) end() {
	d.ending = true
	d.cancel()
}

// drainAvoidedLocked makes the connection that w must not use, if it is one of
// w's host, give up its place among MaxConnsPerHost: the retry of a 421 would
// wait for ever where that connection is the only one allowed.
func (p *Pool) drainAvoidedLocked(w *waiter) {
	for _, e := range w.host.own {
		if e.id == w.Avoid {
			p.setStateLocked(e, stateDraining)
			return
		}
	}
}

// buckets yields where the dial is found by hosts that share an address.
func (d *dial) buckets() func(yield func(bucket) bool) {
	return func(yield func(bucket) bool) {
		for _, a := range d.addrs {
			if !yield(bucket{d.host.key.partition, d.host.key.port, a}) {
				return
			}
		}
	}
}

// dialed takes in the outcome of a dial.
func (p *Pool) dialed(d *dial, c *Dialed, err error) {
	var covers *coalesce.Coverage
	if err == nil {
		covers = p.coverageOf(c.TLS)
	}
	p.mu.Lock()
	defer p.unlock()
	d.done = true
	p.wantedLocked(d)
	d.host.dials = slices.DeleteFunc(d.host.dials, func(o *dial) bool { return o == d })
	for b := range d.buckets() {
		drop(p.dialing, b, p.dialing[b], d)
	}
	e := d.entry
	if err == nil {
		e.conn = c.Conn
		switch {
		case p.closed:
			err = ErrClosed
		case e.state != stateDialing:
			err = e.unusable()
		}
	}
	if err != nil {
		p.dialFailedLocked(d, err)
		return
	}
	p.readyLocked(d, c, covers)
	p.shown.add(d.host.key, p.forOthers(e))
	var waited []*waiter
	for _, w := range p.waiting.snapshot() {
		if w.dial == d {
			p.leaveDialLocked(w)
			w.came = e
			if w.host != d.host {
				p.joinedLocked(w, e)
			}
			waited = append(waited, w)
		}
		p.offerLocked(w, e)
	}
	p.handOutLocked(e)
	p.expectLocked(e)
	for _, w := range waited {
		p.queueLocked(w) // those left over have to look elsewhere
	}
	p.routeQueueLocked() // or e would be idle before those who waited have it
	p.supersedeLocked(e) // ORIGIN frames may have come already
	p.freedLocked(e)
}

// dialFailedLocked tells those who waited for the dial. Requests for its host
// fail with it, unless a connection that is merely full may still serve them;
// requests for other hosts go their own way (none inherits an error).
func (p *Pool) dialFailedLocked(d *dial, err error) {
	if d.entry.state != stateClosed {
		d.entry.state = stateClosed
	}
	if !errors.Is(err, ErrNotHTTP2) {
		p.stats.DialErrors++
		p.answers.Remove(d.host.key) // perhaps the host has moved
	}
	told := new(int)
	for _, w := range p.waiting.snapshot() {
		if w.dial != d {
			continue
		}
		p.leaveDialLocked(w)
		switch {
		case w.host != d.host:
			w.noJoin = true
			p.queueLocked(w)
		case w.hopes() && !p.closed:
			p.restLocked(w.host) // a connection that is merely full will do
		default:
			p.tellLocked(w, err, told)
		}
	}
	if *told == 0 {
		p.goLocked(func() { abandon(err) })
	}
	p.disposeLocked(d.entry)
}

// restLocked keeps h from being dialed for dialRest. Then those who wait may
// dial again: the connections that were full when it began to rest may stay so.
func (p *Pool) restLocked(h *host) {
	now := time.Now()
	if now.Before(h.holdOff) {
		return
	}
	h.holdOff = now.Add(dialRest)
	time.AfterFunc(dialRest, func() {
		p.mu.Lock()
		defer p.unlock()
		for w := range p.waiting.all() {
			if w.host == h {
				p.queueLocked(w)
			}
		}
	})
}

// abandon tells an error that nobody will see it. See ErrNotHTTP2.
func abandon(err error) {
	var a interface{ Abandon() }
	if errors.As(err, &a) {
		a.Abandon()
	}
}

// readyLocked takes the connection that d has made into use.
func (p *Pool) readyLocked(d *dial, c *Dialed, covers *coalesce.Coverage) {
	e := d.entry
	p.nextID++
	e.id = p.nextID
	e.opened = time.Now()
	e.lastUsed = e.opened
	e.facts = coalesce.Conn{
		Host:       e.key.name,
		Port:       e.key.port,
		Partition:  e.key.partition,
		RemoteAddr: netip.AddrPortFrom(coalesce.CanonicalAddr(c.RemoteAddr.Addr()), c.RemoteAddr.Port()),
		TLS:        c.TLS,
		Verify:     c.Verify,
		ClientCert: c.ClientCert,
		Origins:    &e.origins,
	}
	e.addressed = slices.Contains(d.addrs, e.facts.RemoteAddr.Addr())
	if covers != nil {
		e.cert = p.index.certificateFor(covers)
		e.facts.Coverage = e.cert.coverage
	}
	p.setStateLocked(e, stateReady)
	p.armSettleLocked(e)
}
