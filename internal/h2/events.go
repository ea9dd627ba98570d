package h2

import (
	"sync"
	"sync/atomic"
)

// Events receives what happens on a connection.
//
// Settings, GoAway, Unusable and Origin are called from the goroutine that
// reads the connection, in the order of the frames, each before the engine
// sees the frame that it reports; the first may come before NewConn returns.
// Closed is called from whichever goroutine ends the connection. No two calls
// run at the same time. They must not block and must not call into the Conn.
//
// Frames that the engine answers with a connection error are not reported;
// Closed follows.
type Events interface {
	// Settings reports a SETTINGS frame other than an acknowledgement.
	// maxStreams is the server's SETTINGS_MAX_CONCURRENT_STREAMS now in
	// force. RFC 9113 §6.5.2 sets no limit until the server does; the engine
	// then keeps to 1000, which is what is reported.
	Settings(maxStreams uint32)

	// GoAway reports a GOAWAY frame: no new requests, and the streams above
	// lastStreamID were not processed (RFC 9113 §6.8).
	GoAway(lastStreamID uint32, code uint32)

	// Unusable reports that the engine takes no more requests on its own
	// account: a stream was reset with PROTOCOL_ERROR. It is also called when
	// that stream had ended already, which the engine would pass over.
	Unusable()

	// Origin reports an ORIGIN frame on stream 0 without flags. The entries
	// are the text that was sent, not yet checked to be origins; dropped is
	// the number of entries left out because the connection's cap of 128
	// entries or 64 KiB was reached.
	Origin(entries []string, dropped int)

	// Closed reports that a Read failed or that the connection was closed,
	// by Close, by the engine, or because NewConn failed. It is called
	// exactly once, and nothing is called after it.
	Closed(err error)
}

// gate passes events on until the connection is closed.
type gate struct {
	ev     Events
	closed atomic.Bool // written with mu held

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
		g.closed.Store(true)
		g.ev.Closed(err)
	})
}

func (g *gate) pass(event func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed.Load() {
		event()
	}
}
