package pool

import (
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
	if !l.Shared() {
		if l.Fresh() {
			p.rememberOwnLocked(e.key, now)
			return false
		}
		h := p.hosts[e.key]
		return (h == nil || !h.turnsAway) && !p.memory.Has(ownMemoryKey(e.key), now)
	}
	p.rememberLocked(e.memoryKey(l.name), now)
	if e.excluded == nil {
		e.excluded = make(map[string]struct{})
	}
	e.excluded[strings.Clone(l.name)] = struct{}{}
	p.unplaceLocked(e, l.name)
	p.index.unlist(e, l.name)
	e.origins.Remove(l.name, e.key.port)
	p.unplaceAlikeLocked(e, l.name)
	return true
}

// unplaceAlikeLocked takes the host called name off the connections that what
// was just remembered of e is true of, too: those with its certificate and
// address (C10).
func (p *Pool) unplaceAlikeLocked(e *entry, name string) {
	if p.cfg.MisdirectedTTL <= 0 || e.cert == nil {
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

// MisdirectedAgain records that the retry of a misdirected request, on the
// lease's connection, was answered 421 as well.
func (l *Lease) MisdirectedAgain() {
	p := l.e.pool
	p.mu.Lock()
	defer p.unlock()
	p.stats.Misdirected++
	p.rememberOwnLocked(l.e.key, time.Now())
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
// MisdirectedTTL that holds for as long as it has connections.
func (p *Pool) rememberOwnLocked(key hostKey, now time.Time) {
	p.rememberLocked(ownMemoryKey(key), now)
	if h := p.hosts[key]; h != nil && p.cfg.MisdirectedTTL <= 0 {
		h.turnsAway = true
	}
}

// excludes reports whether the host called name was answered 421 on e.
func (e *entry) excludes(name string) bool {
	_, ok := e.excluded[name]
	return ok
}

// rememberedLocked reports whether the host called name was answered 421 by a
// server with e's certificate and address, within MisdirectedTTL (C10).
func (p *Pool) rememberedLocked(e *entry, name string, now time.Time) bool {
	return e.cert != nil && p.memory.Has(e.memoryKey(name), now)
}

func (e *entry) memoryKey(name string) coalesce.MemoryKey {
	k := coalesce.MemoryKey{Host: name, Port: e.key.port, Partition: e.key.partition, RemoteAddr: e.facts.RemoteAddr}
	if e.cert != nil {
		k.Fingerprint = e.cert.coverage.Fingerprint()
	}
	return k
}

// ownMemoryKey is under what 421s of a host's own connections are remembered:
// no certificate and no address, since any may be dialed.
func ownMemoryKey(key hostKey) coalesce.MemoryKey {
	return coalesce.MemoryKey{Host: key.name, Port: key.port, Partition: key.partition}
}
