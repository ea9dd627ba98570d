package pool

import (
	"net/netip"
	"strings"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

// host is what the pool knows of a host that has connections, or requests that
// wait for one. It goes when it has neither.
type host struct {
	key    hostKey
	own    []*entry // ready connections dialed for it, oldest first
	placed *entry   // the other host's connection that it was last put on
	dials  []*dial  // connections being dialed for it

	looking *lookup  // the look-up under way that waiters may wait for; nil if there is none
	lookups int      // look-ups under way
	crowded waitList // waiters that only MaxConnsPerHost keeps from dialing

	count   int // own connections and dials, closing ones included: MaxConnsPerHost
	waiting int // waiters
	// turnsAway is M5's memory where there is no MisdirectedTTL: a connection
	// dialed for the host has answered 421.
	turnsAway bool

	noJoin  bool      // another host's handshake at its address did not cover it (P2)
	stalls  int       // times in a row that a limit of 0 on its connections was waited for in vain
	holdOff time.Time // a dial failed while its connections were full: not again before
}

// hostForLocked returns the record of key, made if need be.
func (p *Pool) hostForLocked(key hostKey) *host {
	h := p.hosts[key]
	if h == nil {
		// The name may be a part of a URL, which is not to live on in here.
		key.name, key.partition = strings.Clone(key.name), strings.Clone(key.partition)
		h = &host{key: key}
		p.hosts[key] = h
	}
	return h
}

// forgetLocked drops h when nothing depends on it any more.
func (p *Pool) forgetLocked(h *host) {
	if len(h.own) == 0 && h.placed == nil && len(h.dials) == 0 && h.count == 0 && h.waiting == 0 && h.lookups == 0 {
		delete(p.hosts, h.key)
	}
}

// placeLocked puts h on e, so that its later requests go there without DNS.
func (p *Pool) placeLocked(h *host, e *entry) *placement {
	h.placed = e
	pl := e.hosts[h.key.name]
	if pl != nil {
		return pl
	}
	pl = &placement{checked: time.Now()}
	switch p.cfg.Policy.Match {
	case coalesce.MatchAddress:
		pl.byAddress = true
	case coalesce.MatchOrigin:
		pl.byAddress = !e.origins.Contains(h.key.name, h.key.port)
	}
	if a, ok := p.answers.Peek(h.key); ok {
		pl.checked = a.at
	}
	if e.hosts == nil {
		e.hosts = make(map[string]*placement)
	}
	e.hosts[h.key.name] = pl
	return pl
}

// unplaceLocked takes the host called name off e. Its requests that are in line
// there have to look elsewhere, and another host may take its place.
func (p *Pool) unplaceLocked(e *entry, name string) {
	wasFull := e.hostsFull()
	delete(e.hosts, name)
	if wasFull && !e.hostsFull() {
		p.queueAllLocked(&p.waiting)
	} else {
		p.queueHostLocked(&e.waiters, name)
	}
	if h := p.hosts[e.hostKey(name)]; h != nil && h.placed == e {
		h.placed = nil
		p.forgetLocked(h)
	}
}

// addressesLocked returns the last answer of a look-up of key's host, if it is
// not older than maxAge. The answers that are forgotten first are the oldest.
func (p *Pool) addressesLocked(key hostKey, maxAge time.Duration, now time.Time) ([]netip.Addr, bool) {
	a, ok := p.answers.Peek(key)
	if !ok || now.Sub(a.at) > maxAge {
		return nil, false
	}
	return a.addrs, true
}

// answer is what a look-up of a host said, and when.
type answer struct {
	addrs []netip.Addr
	at    time.Time
}
