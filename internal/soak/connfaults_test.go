package soak

import (
	"math"
	"time"

	"golang.org/x/net/http2"
)

// connFaults are those of one open connection.
func connFaults() []fault {
	return []fault{
		onConn("GOAWAY, graceful", 3, (*faults).shutDown),
		onConn("GOAWAY, lower last stream", 3, func(f *faults, c *conn) {
			c.goAway(http2.ErrCodeNo, f.anyStream)
			f.closeLater(c)
		}),
		onConn("GOAWAY with an error", 2, func(f *faults, c *conn) {
			c.goAway(pick(f.dice, http2.ErrCodeEnhanceYourCalm, http2.ErrCodeInternal, http2.ErrCodeProtocol), f.anyStream)
			f.closeLater(c)
		}),
		onConn("any stream reset", 4, (*faults).resetStream),
		onConn("stream limit changed", 4, (*faults).changeStreams),
		onConn("ORIGIN frame", 3, (*faults).list),
		onConn("PING", 1, func(_ *faults, c *conn) { _ = c.Ping() }),
	}
}

// roughFaults are those by which a server ends a connection under way.
func roughFaults() []fault {
	return []fault{
		onConn("connection cut", 4, func(_ *faults, c *conn) { c.Cut() }),
		onConn("connection closed", 2, func(_ *faults, c *conn) { _ = c.Close() }), // the socket is closed in any case
		onConn("connection frozen", 1, (*faults).freeze),
	}
}

// onConn makes a fault of what concerns an HTTP/2 connection.
func onConn(name string, weight int, do func(*faults, *conn)) fault {
	return fault{name, weight, func(f *faults) bool {
		c := f.world.conns.any(f.dice)
		if c == nil || c.server.http1 {
			return false
		}
		do(f, c)
		return true
	}}
}

func (f *faults) anyStream(low, high uint32) uint32 { return low + f.dice.Uint32N(high-low+1) }

// shutDown ends a connection as servers do that are about to restart: in two
// steps, or at once (RFC 9113 §6.8).
func (f *faults) shutDown(c *conn) {
	finish := func() {
		if !c.isFrozen() {
			c.goAway(http2.ErrCodeNo, func(_, high uint32) uint32 { return high })
		}
		f.closeLater(c)
	}
	if f.dice.chance(50) {
		finish()
		return
	}
	c.goAway(http2.ErrCodeNo, func(_, _ uint32) uint32 { return math.MaxInt32 })
	f.later(f.dice.upTo(100*time.Millisecond), finish)
}

// closeLater has a connection that takes no more streams closed, or left to the
// client.
func (f *faults) closeLater(c *conn) {
	if f.world.rough.Load() && f.dice.chance(50) {
		f.later(f.dice.upTo(500*time.Millisecond), c.Cut)
	}
}

// resetStream resets a stream whatever its state, if it has any. It may have
// been acted on, so it is not said to be refused.
func (f *faults) resetStream(c *conn) {
	c.mu.Lock()
	highest := c.highest
	c.mu.Unlock()
	if highest == 0 {
		return
	}
	stream := highest - 2*f.dice.Uint32N(min(highest/2, 10)+1)
	_ = c.Reset(stream, pick(f.dice, resetCodes()...))
}

// freeze makes a server fall silent, mostly for a moment, but sometimes for so
// long that the client finds out.
func (f *faults) freeze(c *conn) {
	c.freeze()
	d := f.longest
	if f.dice.chance(60) {
		d = f.dice.upTo(300 * time.Millisecond)
	}
	f.later(d, c.Cut)
}

// changeStreams changes the limit on streams, for a while to none at all.
func (f *faults) changeStreams(c *conn) {
	set := func(n uint32) {
		_ = c.Settings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: n})
	}
	n := pick(f.dice, 0, 1, 1, 2, 5, 20, 100)
	set(uint32(n))
	if n == 0 {
		again := 1 + f.dice.Uint32N(20)
		f.later(f.dice.upTo(300*time.Millisecond), func() {
			if !c.isFrozen() {
				set(again)
			}
		})
	}
}

// list sends an ORIGIN frame late. What it lists are hosts that the server
// serves, and sometimes others: those it merely has a certificate for answer 421
// there, and the rest are not to come.
func (f *faults) list(c *conn) {
	foreign := f.dice.chance(20)
	var hosts []*host
	for range f.dice.IntN(100) {
		if h := f.host(); foreign || c.server.serves[h.name] != nil {
			hosts = append(hosts, h)
		}
	}
	c.list(hosts)
}
