package pool

import (
	"net/netip"
	"slices"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

// joinLocked lets w wait for a dial under way: one of its own host, or one of
// another host to the same address, whose connection it may then share (P2).
func (p *Pool) joinLocked(w *waiter, addrs []netip.Addr) bool {
	for _, d := range w.host.dials {
		if d.takes() {
			p.waitForLocked(w, d)
			return true
		}
	}
	if w.noJoin || w.host.noJoin || !p.joinsLocked(w) {
		return false
	}
	d := p.joinableLocked(w, addrs)
	if d == nil {
		return false
	}
	p.waitForLocked(w, d)
	w.joinTimer = time.AfterFunc(p.cfg.Policy.JoinWaitOrDefault(), func() { p.joinExpired(w, d) })
	return true
}

// gatherLocked has those who wait for room wait for d instead, which has begun, if
// they may: no connection is to be closed, and none dialed, for them.
func (p *Pool) gatherLocked(d *dial) {
	var ws []*waiter
	for w := range p.starved.all() {
		if w.host == d.host || slices.ContainsFunc(w.addrs, func(a netip.Addr) bool { return slices.Contains(d.addrs, a) }) {
			ws = append(ws, w)
		}
	}
	for _, w := range ws {
		p.joinLocked(w, w.addrs)
	}
}

// joinsLocked reports whether w may wait for another host's handshake at all.
func (p *Pool) joinsLocked(w *waiter) bool {
	return !w.ownOnly() && !w.ProvenOnly && p.cfg.Policy.JoinWaitOrDefault() >= 0 && p.sharesLocked()
}

// joinableLocked returns a dial of another host that may reach one of addrs, and
// for all that is known may meet a certificate that covers w's host; rather one
// that is known to. It returns nil if there is none.
func (p *Pool) joinableLocked(w *waiter, addrs []netip.Addr) (best *dial) {
	b := bucket{partition: w.Partition, port: w.Port}
	for _, b.addr = range addrs {
		for _, d := range p.dialing[b] {
			if d.host.key == w.key() || !d.takes() {
				continue
			}
			switch covers, known := p.shown.expected(d.host.key, w.Host); {
			case covers:
				return d
			case !known && best == nil:
				best = d
			}
		}
	}
	return best
}

// sharesLocked reports whether any host may use another's connection at all.
func (p *Pool) sharesLocked() bool {
	return p.cfg.Policy.Match != coalesce.MatchNever && p.limits.MaxHostsPerConn != 1
}

func (p *Pool) waitForLocked(w *waiter, d *dial) {
	p.wantedLocked(d)
	w.dial = d
	d.load++
	p.starved.remove(w)
	w.host.crowded.remove(w)
}

// leaveDialLocked ends w's wait for a handshake.
func (p *Pool) leaveDialLocked(w *waiter) {
	if w.joinTimer != nil {
		w.joinTimer.Stop()
		w.joinTimer = nil
	}
	d := w.dial
	if d == nil {
		return
	}
	w.dial = nil
	if d.load--; d.load == 0 && !d.done {
		p.unwantedLocked(d)
	}
}

// joinExpired sends w, who has waited JoinWait for another host's handshake,
// on its own way.
func (p *Pool) joinExpired(w *waiter, d *dial) {
	p.mu.Lock()
	defer p.unlock()
	if w.done || w.dial != d {
		return
	}
	p.leaveDialLocked(w)
	w.noJoin = true
	p.queueLocked(w)
}

// joinedLocked sees to it that w, who has waited for e, another host's
// connection, does not wait for a further handshake if e is not for w's host
// (P2). If e is merely full the next one may do.
func (p *Pool) joinedLocked(w *waiter, e *entry) {
	if e.cert == nil || !e.cert.coverage.Covers(w.Host) {
		w.host.noJoin = true
		return
	}
	now := time.Now()
	addrs, _ := p.addressesLocked(w.host.key, p.evidenceAge(), now)
	ask := w.ask(addrs)
	switch p.judgeLocked(w, e, &ask, now) {
	case coalesce.ReasonShared, coalesce.ReasonFull:
	default:
		w.noJoin = true
	}
}
