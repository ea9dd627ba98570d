package pool

import (
	"slices"
	"strings"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

// Misdirected records that the server has answered 421 on the lease's
// connection. If the connection is another host's, the host is taken off it,
// that host alone (M2), and kept off connections with the same certificate and
// address for MisdirectedTTL (M3). It reports whether another connection is
// worth a try: not if this one was dialed for the request (M1), nor if one
// that was has answered 421 within MisdirectedTTL (M5).
func (l *Lease) Misdirected() (retry bool) {
	p, e := l.e.pool, l.e
	now := time.Now()
	p.mu.Lock()
	defer p.unlock()
	p.stats.Misdirected++
	l.delistLocked()
	switch {
	case l.Shared():
	case l.Fresh():
		l.rememberOwnLocked(now)
		return false
	case l.fronts:
		return true
	default:
		h := p.hosts[e.key]
		return (h == nil || !h.turnsAway) && !p.memory.Has(ownMemoryKey(e.key), now)
	}
	p.rememberLocked(e.memoryKey(l.name), now)
	e.exclude(l.name)
	p.unplaceLocked(e, l.name)
	p.unplaceAlikeLocked(e, l.name)
	return true
}

// delistLocked takes the request's origin out of the connection's origin set
// (O3, RFC 8336 §2.3).
func (l *Lease) delistLocked() {
	if l.fronts {
		return // the server has answered for another host
	}
	l.e.pool.index.unlist(l.e, l.name)
	l.e.origins.Remove(l.name, l.e.key.port)
}

// unplaceAlikeLocked takes the host called name off the connections that what
// was just remembered of e is true of, too: those with its certificate and
// address (C10).
func (p *Pool) unplaceAlikeLocked(e *entry, name string) {
	if p.cfg.MisdirectedTTL <= 0 {
		return
	}
	known := p.index.certs[e.cert.coverage.Fingerprint()]
	if known == nil {
		return
	}
	for _, o := range known.conns[p.index.bucketOf(e)] {
		if o.hosts[name] != nil && o.facts.RemoteAddr == e.facts.RemoteAddr {
			p.unplaceLocked(o, name)
		}
	}
}

// Disown records that another connection of the host's own has answered what
// was misdirected on the lease's, which is one too: that one serves the host no
// more, though it stays open for the other hosts on it.
func (l *Lease) Disown() {
	p, e := l.e.pool, l.e
	p.mu.Lock()
	defer p.unlock()
	if l.fronts || e.state != stateReady {
		return
	}
	e.exclude(e.key.name)
	h := p.hosts[e.key] // which has e
	h.own = slices.DeleteFunc(h.own, func(o *entry) bool { return o == e })
	p.queueAllLocked(&e.waiters)
}

// MisdirectedAgain records that the retry of a misdirected request, on the
// lease's connection, was answered 421 as well.
func (l *Lease) MisdirectedAgain() {
	p := l.e.pool
	p.mu.Lock()
	defer p.unlock()
	p.stats.Misdirected++
	l.delistLocked()
	l.rememberOwnLocked(time.Now())
}

// Retried counts a misdirected request that is sent again.
func (p *Pool) Retried() {
	p.mu.Lock()
	defer p.unlock()
	p.stats.Retried++
}

func (p *Pool) rememberLocked(k coalesce.MemoryKey, now time.Time) {
	if p.cfg.MisdirectedTTL > 0 {
		p.memory.Add(k, now.Add(p.cfg.MisdirectedTTL))
	}
}

// rememberOwnLocked notes that the host's own server sends it away. Without a
// MisdirectedTTL that holds for as long as it has connections. Of a request
// that named another host to the server (C12) nothing is noted.
func (l *Lease) rememberOwnLocked(now time.Time) {
	if l.fronts {
		return
	}
	p, key := l.e.pool, l.e.key
	p.rememberLocked(ownMemoryKey(key), now)
	if h := p.hosts[key]; h != nil && p.cfg.MisdirectedTTL <= 0 {
		h.turnsAway = true
	}
}

// exclude keeps the host called name off e.
func (e *entry) exclude(name string) {
	if e.excluded == nil {
		e.excluded = make(map[string]struct{})
	}
	e.excluded[strings.Clone(name)] = struct{}{} // it may be a part of a URL
}

// excludes reports whether the host called name was answered 421 on e.
func (e *entry) excludes(name string) bool {
	_, ok := e.excluded[name]
	return ok
}

// rememberedLocked reports whether the host called name was answered 421 by a
// server with e's certificate and address, within MisdirectedTTL (C10).
func (p *Pool) rememberedLocked(e *entry, name string, now time.Time) bool {
	// Most clients never see a 421, and the key is long.
	return p.memory.Len() > 0 && p.memory.Has(e.memoryKey(name), now)
}

// memoryKey is under what it is remembered that the host called name, which may
// share e by the rules or has done so, was answered 421.
func (e *entry) memoryKey(name string) coalesce.MemoryKey {
	return coalesce.MemoryKey{
		Host:        name,
		Port:        e.key.port,
		Partition:   e.key.partition,
		Fingerprint: e.cert.coverage.Fingerprint(),
		RemoteAddr:  e.facts.RemoteAddr,
	}
}

// ownMemoryKey is under what 421s of a host's own connections are remembered:
// no certificate and no address, since any may be dialed.
func ownMemoryKey(key hostKey) coalesce.MemoryKey {
	return coalesce.MemoryKey{Host: key.name, Port: key.port, Partition: key.partition}
}
