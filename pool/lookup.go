package pool

import (
	"context"
	"net/netip"
	"slices"
	"time"
)

// lookUpLocked has w's host looked up, once for all who wait for it.
func (p *Pool) lookUpLocked(w *waiter) {
	h := w.host
	h.looking.add(w)
	if h.lookingUp {
		return
	}
	h.lookingUp = true
	p.resolveLocked(context.WithoutCancel(w.ctx), h.key, func(addrs []netip.Addr, err error) {
		h.lookingUp = false
		defer p.forgetLocked(h)
		for _, w := range h.looking.snapshot() {
			h.looking.remove(w)
			w.looked = true
			switch {
			case err == nil:
				p.queueLocked(w)
			case len(w.registered) > 0:
				p.restLocked(h) // a connection that is merely full will do
			default:
				p.failLocked(w, err)
			}
		}
	})
}

// recheckLocked looks h up in the background and takes it off e if its address
// has moved away (C9). Requests go on meanwhile. When the look-up fails h
// stays: that is no evidence of a move.
func (p *Pool) recheckLocked(h *host, e *entry, pl *placement) {
	if p.cfg.Resolve == nil {
		return
	}
	pl.checking = true
	p.resolveLocked(p.ctx, h.key, func(addrs []netip.Addr, err error) {
		pl.checking = false
		pl.checked = time.Now()
		if err == nil && e.hosts[h.key.name] == pl && !slices.Contains(addrs, e.facts.RemoteAddr.Addr()) {
			p.unplaceLocked(e, h.key.name)
		}
	})
}

// answeredLocked has those routed again who wait for key's host since before
// its last look-up: an open connection may be at an address that is new.
func (p *Pool) answeredLocked(key hostKey) {
	if h := p.hosts[key]; h == nil || h.waiting == h.looking.len() {
		return
	}
	for _, w := range p.waiting.ws {
		if w.key() == key {
			p.queueLocked(w)
		}
	}
}

// resolveLocked looks key's host up in a goroutine, keeps the answer, and calls
// done with mu held.
func (p *Pool) resolveLocked(ctx context.Context, key hostKey, done func([]netip.Addr, error)) {
	ctx, cancel := context.WithCancel(ctx)
	p.goLocked(func() {
		defer context.AfterFunc(p.ctx, cancel)()
		defer cancel()
		addrs, err := p.cfg.Resolve(ctx, key.name)
		p.mu.Lock()
		defer p.unlock()
		if err == nil {
			p.answers.Add(key, answer{addrs, time.Now()})
			p.answeredLocked(key)
		}
		done(addrs, err)
	})
}
