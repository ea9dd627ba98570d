package h2

import (
	"sync"
	"sync/atomic"
)

// Events receives what happens on a connection.
//
// Settings, GoAway, Unusable and Origin are called from the goroutine that
// reads the connection, in the order of the frames and before the engine sees
// the frame that they report. The first call of Settings is the exception: it
// comes after the calls for what has arrived together with the frame. The
// first call of any may come before NewConn returns.
// Closed is called from whichever goroutine ends the connection. No two calls
// run at the same time. They must not block and must not call into the Conn.
//
// Frames that the engine answers with a connection error are not reported;
// Closed follows.
type Events interface {
	// Settings reports the server's SETTINGS_MAX_CONCURRENT_STREAMS now in
	// force: when the first SETTINGS frame other than an acknowledgement has
	// arrived, and when a later one changes it. RFC 9113 §6.5.2 sets no limit
	// until the server does; the engine then keeps to 1000, which is what is
	// reported.
	Settings(maxStreams uint32)

	// GoAway reports a GOAWAY frame: no new requests, and the streams above
	// lastStreamID were not processed (RFC 9113 §6.8).
	GoAway(lastStreamID uint32, code uint32)

	// Unusable reports, once, that the engine takes no more requests on its
	// own account: a stream was reset with PROTOCOL_ERROR. It is also called
	// when that stream had ended already, which the engine would pass over.
	Unusable()

	// Origin reports an ORIGIN frame on stream 0 with none of the flags that
	// RFC 8336 reserves. The entries are the text that was sent, not yet
	// checked to be origins. A frame without entries is reported only if it is
	// the connection's first, when it tells that there is an origin set
	// (RFC 8336 §2.3).
	//
	// Of all ORIGIN payload on a connection the first 64 KiB are read (O4);
	// dropped is the number of this frame's entries that are not wholly within
	// them. The frame that exceeds them is the last one reported: what is
	// listed behind it is neither read nor counted.
	Origin(entries []string, dropped int)

	// Closed reports that a Read failed or that the connection was closed,
	// by Close, by the engine, because NewConn failed, or because nothing was
	// received in time after a PING (P7). It is called exactly once, and
	// nothing is called after it.
	Closed(err error)
}

// gate passes events on until the connection is closed.
type gate struct {
	ev     Events
	closed atomic.Bool // written with mu held
	cause  error       // what Closed was called with; not to be read before closed is set

	// mu is held while ev is called: Close comes from any goroutine, and
	// what the reading goroutine has found meanwhile must not follow it.
	mu sync.Mutex
}

var _ Events = (*gate)(nil)

func (g *gate) Settings(maxStreams uint32) {
	g.pass(func() { g.ev.Settings(maxStreams) })
}

func (g *gate) GoAway(lastStreamID, code uint32) {
	g.pass(func() { g.ev.GoAway(lastStreamID, code) })
}

func (g *gate) Unusable() {
	g.pass(g.ev.Unusable)
}

func (g *gate) Origin(entries []string, dropped int) {
	g.pass(func() { g.ev.Origin(entries, dropped) })
}

func (g *gate) Closed(err error) {
	g.pass(func() {
		g.cause = err
		g.closed.Store(true)
		g.ev.Closed(err)
	})
}

// lost returns the error that the connection was closed with if its peer was
// found to be gone, else nil.
func (g *gate) lost() *lostError {
	if !g.closed.Load() {
		return nil
	}
	err, _ := g.cause.(*lostError)
	return err
}

func (g *gate) pass(event func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed.Load() {
		event()
	}
}
