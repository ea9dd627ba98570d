package pool

import (
	"cmp"
	"maps"
	"slices"
)

// Stats returns a snapshot of the pool's counters.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.unlock()
	s := p.stats
	s.Conns = len(p.conns)
	s.Idle = p.idle.len
	s.Waiting = p.waiting.len()
	return s
}

// Conns describes the open connections, oldest first.
func (p *Pool) Conns() []ConnInfo {
	p.mu.Lock()
	defer p.unlock()
	infos := make([]ConnInfo, 0, len(p.conns))
	for _, e := range p.byAgeLocked() {
		infos = append(infos, e.info())
	}
	return infos
}

func (p *Pool) byAgeLocked() []*entry {
	return slices.SortedFunc(maps.Keys(p.conns), func(a, b *entry) int { return cmp.Compare(a.id, b.id) })
}

func (e *entry) info() ConnInfo {
	info := ConnInfo{
		ID:             e.id,
		Host:           e.key.name,
		Port:           e.key.port,
		Partition:      e.key.partition,
		Hosts:          slices.Sorted(maps.Keys(e.hosts)),
		OriginSet:      e.origins.List(),
		OriginSetSeen:  e.origins.Seen(),
		OriginsDropped: e.origins.Dropped(),
		Excluded:       slices.Sorted(maps.Keys(e.excluded)),
		Draining:       e.state == stateDraining,
		Streams:        e.streams,
		MaxStreams:     e.limit(),
		Opened:         e.opened,
		LastUsed:       e.lastUsed,
		Requests:       e.requests,
	}
	if e.facts.RemoteAddr.IsValid() {
		info.RemoteAddr = e.facts.RemoteAddr.String()
	}
	if e.cert != nil {
		info.SANs = e.cert.coverage.SANs()
	}
	at, _ := slices.BinarySearch(info.Hosts, e.key.name)
	info.Hosts = slices.Insert(info.Hosts, at, e.key.name)
	return info
}
