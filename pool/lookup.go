package pool

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

// lookup is a look-up of a host under way.
type lookup struct {
	begun   time.Time
	waiters waitList
	cancel  context.CancelFunc
}

// lookUpLocked has w's host looked up, once for all who wait for it.
func (p *Pool) lookUpLocked(w *waiter) {
	if w.lookup != nil {
		return
	}
	h := w.host
	l := h.looking
	if l == nil {
		l = &lookup{begun: time.Now()}
		h.looking = l
		h.lookups++
		l.cancel = p.resolveLocked(context.WithoutCancel(w.ctx), h.key, func(_ []netip.Addr, err error) {
			p.lookedUpLocked(h, l, err)
		})
	}
	w.lookup = l
	l.waiters.add(w)
}

// lookedUpLocked tells those who wait for l that it has ended.
func (p *Pool) lookedUpLocked(h *host, l *lookup, err error) {
	h.lookups--
	if h.looking == l {
		h.looking = nil
	}
	defer p.forgetLocked(h)
	for _, w := range l.waiters.snapshot() {
		l.waiters.remove(w)
		w.lookup = nil
		w.looked = true
		switch {
		case err == nil:
			p.queueLocked(w)
		case w.hopes():
			p.restLocked(h) // a connection that is merely full will do
		default:
			p.failLocked(w, err)
		}
	}
}

// leaveLookupLocked ends w's wait for a look-up.
func (p *Pool) leaveLookupLocked(w *waiter) {
	l := w.lookup
	if l == nil {
		return
	}
	w.lookup = nil
	l.waiters.remove(w)
	if l.waiters.len() == 0 && w.host.looking != l {
		l.cancel() // it was given up as slow
	}
}

// givenUpLocked notes that w's caller has no more time. A dial or look-up that
// took the time is not waited for by those who come later.
func (p *Pool) givenUpLocked(w *waiter) {
	if d := w.dial; d != nil && time.Since(d.begun) >= slowAfter {
		d.slow = true
	}
	if l := w.lookup; l != nil && time.Since(l.begun) >= slowAfter && w.host.looking == l {
		w.host.looking = nil
	}
}

// recheckLocked looks h up in the background and takes it off e if its address
// has moved away (C9) or it has none any more. Requests go on meanwhile. When
// the look-up fails otherwise h stays: that is no evidence of a move.
func (p *Pool) recheckLocked(h *host, e *entry, pl *placement) {
	if p.cfg.Resolve == nil {
		return
	}
	pl.checking = true
	p.resolveLocked(p.ctx, h.key, func(addrs []netip.Addr, err error) {
		pl.checking = false
		pl.checked = time.Now()
		if e.hosts[h.key.name] != pl || err != nil && !notFound(err) {
			return
		}
		ask := coalesce.Request{Host: h.key.name, Port: h.key.port, Partition: h.key.partition, Addrs: addrs}
		if p.judgeAskedLocked(e, &ask, pl.checked) == coalesce.ReasonAddressMismatch {
			p.unplaceLocked(e, h.key.name)
		}
	})
}

// notFound reports whether a look-up has found that there is no such host.
func notFound(err error) bool {
	e, ok := errors.AsType[*net.DNSError](err)
	return ok && e.IsNotFound
}

// answeredLocked has those routed again who wait for key's host since before
// its last look-up: an open connection may be at an address that is new.
func (p *Pool) answeredLocked(key hostKey) {
	if h := p.hosts[key]; h == nil || h.waiting == 0 {
		return
	}
	for w := range p.waiting.all() {
		if w.key() == key {
			p.queueLocked(w)
		}
	}
}

// resolveLocked looks key's host up in a goroutine, keeps the answer, and calls
// done with mu held. It returns what ends the look-up.
func (p *Pool) resolveLocked(ctx context.Context, key hostKey, done func([]netip.Addr, error)) context.CancelFunc {
	ctx, cancel := context.WithCancel(ctx)
	p.goLocked(func() {
		defer context.AfterFunc(p.ctx, cancel)()
		defer cancel()
		addrs, err := p.cfg.Resolve(ctx, key.name)
		addrs = canonicalAddrs(addrs)
		p.mu.Lock()
		defer p.unlock()
		if err == nil {
			p.answers.Add(key, answer{addrs, time.Now()})
			p.answeredLocked(key)
		}
		done(addrs, err)
	})
	return cancel
}

// canonicalAddrs returns addrs in the form in which the index and the rules
// compare them.
func canonicalAddrs(addrs []netip.Addr) []netip.Addr {
	out := make([]netip.Addr, len(addrs))
	for i, a := range addrs {
		out[i] = coalesce.CanonicalAddr(a)
	}
	return out
}
