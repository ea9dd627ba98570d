package pool

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

// O6: a connection whose origin set is a proper subset of another's takes no
// new requests and is closed when those under way have ended (RFC 8336 §2.4),
// so that connections which a server's later frames have made redundant do not
// linger.
//
// What a server lists proves nothing. A server that listed the origins of
// others could otherwise end other servers' connections, again and again. So
// the other connection has to be one that all hosts of the first may use by
// the rules, as far as the certificate of the first lets it serve them at all.

// takeover is a host of one connection that would move to another.
type takeover struct {
	conn uint64 // ID of the other one
	host string
}

// supersedeLocked applies O6 after the origin set of e has changed, or e has
// become ready: to e, and to the connections whose sets e's may exceed.
func (p *Pool) supersedeLocked(e *entry) {
	if p.supersededLocked(e) || e.state != stateReady {
		return
	}
	for _, name := range e.listed {
		if h := p.hosts[e.hostKey(name)]; h != nil {
			for _, o := range slices.Clone(h.own) {
				p.retireForLocked(o, e)
			}
		}
	}
	for _, o := range slices.Clone(p.hostForLocked(e.key).own) {
		p.retireForLocked(o, e)
	}
}

// supersededLocked retires e if another connection makes it redundant, and
// reports whether it has.
func (p *Pool) supersededLocked(e *entry) bool {
	if e.state != stateReady || !e.origins.Seen() {
		return false
	}
	// What it is a subset of has its host as well: listed, or as its own.
	for _, conns := range [...][]*entry{p.index.listed[e.key], p.hostForLocked(e.key).own} {
		for _, o := range conns {
			if p.retireForLocked(e, o) {
				return true
			}
		}
	}
	return false
}

// retireForLocked retires e if o makes it redundant, and reports whether it
// has. The hosts whose requests e gets are placed on o.
func (p *Pool) retireForLocked(e, o *entry) bool {
	if e == o || e.wanted || e.state != stateReady || !e.origins.ProperSubsetOf(&o.origins) || !coversAll(e, o) {
		return false
	}
	hosts := p.leavingLocked(e, o)
	if !o.freeForOthers(newcomer) || !o.hasRoomFor(hosts) {
		return false
	}
	var unasked []string
	for _, name := range hosts {
		switch reason, asked := p.admitsLocked(o, e, name); {
		case reason != coalesce.ReasonShared:
			return false
		case !asked:
			unasked = append(unasked, name)
		}
	}
	if len(unasked) > 0 {
		p.askForTakeoverLocked(e, o, unasked)
		return false
	}
	for _, name := range hosts {
		p.moveLocked(name, e, o)
	}
	p.setStateLocked(e, stateDraining)
	return true
}

// moveLocked places the host called name on o. What justified it on e, the
// address that both have, justifies it there, and no longer than on e.
func (p *Pool) moveLocked(name string, e, o *entry) {
	checked := e.opened
	if old := e.hosts[name]; old != nil {
		checked = old.checked
	}
	if pl := p.placeLocked(p.hostForLocked(e.hostKey(name)), o); pl.checked.After(checked) {
		pl.checked = checked
	}
}

// coversAll reports whether o's certificate covers those hosts that e lists and
// e's certificate covers. Hosts that use e are asked about one by one.
func coversAll(e, o *entry) bool {
	if e.cert == nil || o.cert == nil {
		return false
	}
	if e.cert == o.cert {
		return true
	}
	return !slices.ContainsFunc(e.listed, func(name string) bool {
		return e.cert.coverage.Covers(name) && !o.cert.coverage.Covers(name)
	})
}

// leavingLocked returns the hosts whose next requests would go on e, but for
// those that have o as their own.
func (p *Pool) leavingLocked(e, o *entry) (hosts []string) {
	if e.key != o.key {
		hosts = append(hosts, e.key.name)
	}
	for name := range e.hosts {
		if h := p.hosts[e.hostKey(name)]; h != nil && h.placed == e && h.key != o.key {
			hosts = append(hosts, name)
		}
	}
	return hosts
}

// hasRoomFor reports whether MaxHostsPerConn permits those of hosts that are
// not there yet.
func (o *entry) hasRoomFor(hosts []string) bool {
	m := o.pool.limits.MaxHostsPerConn
	if m <= 0 {
		return true
	}
	n := 1 + len(o.hosts)
	for _, name := range hosts {
		if o.hosts[name] == nil {
			n++
		}
	}
	return n <= m
}

// admitsLocked tells what the rules say of moving the host called name from e
// to o, and whether the caller's code has had its say.
func (p *Pool) admitsLocked(o, e *entry, name string) (reason coalesce.Reason, asked bool) {
	ask := coalesce.Request{Host: name, Port: e.key.port, Partition: e.key.partition, Said: e.takeovers[takeover{o.id, name}]}
	// The host resolves to e's address, or both connections list it. Not so
	// e's own host, if a dial function of the caller's has connected e to
	// somewhere else.
	if name != e.key.name || e.addressed {
		ask.Addrs = []netip.Addr{e.facts.RemoteAddr.Addr()}
	}
	asked = ask.Said != "" || o.hosts[name] != nil || !p.cfg.Policy.Consults(&o.facts)
	return p.judgeAskedLocked(o, &ask, time.Now()), asked
}

// takeoversKept bounds the answers of the caller's code about one connection.
const takeoversKept = 1024

// askForTakeoverLocked asks the caller's code about hosts of e that would move
// to o, in a goroutine, and tries again.
func (p *Pool) askForTakeoverLocked(e, o *entry, hosts []string) {
	if e.asking {
		return
	}
	e.asking = true
	facts := o.facts
	p.goLocked(func() { // ends when the caller's code has answered
		said := make(map[takeover]coalesce.Reason)
		for _, name := range hosts {
			ask := coalesce.Request{Host: name, Port: e.key.port, Partition: e.key.partition}
			said[takeover{o.id, name}] = p.cfg.Policy.Consult(&facts, &ask)
		}
		p.mu.Lock()
		defer p.unlock()
		e.asking = false
		if e.takeovers == nil || len(e.takeovers)+len(said) > takeoversKept {
			e.takeovers = make(map[takeover]coalesce.Reason)
		}
		maps.Copy(e.takeovers, said)
		p.retireForLocked(e, o)
	})
}
