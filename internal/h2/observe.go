package h2

import (
	"crypto/tls"
	"net"
	"sync/atomic"
	"time"
)

// closeNotifyTimeout bounds the attempt to tell the peer of a close. crypto/tls
// waits 5 s for a peer that reads nothing, and the engine's own bound applies
// to a bare *tls.Conn only.
const closeNotifyTimeout = 250 * time.Millisecond

// An observer does the work of an observing connection. Its read is called by
// one goroutine, its other methods by any.
type observer struct {
	gate
	conn  net.Conn // the one observed
	scan  *scanner
	err   error                // of its Read; nothing is read after it
	small [frameHeaderLen]byte // stands in for a buffer too small for a frame header
	ready []byte               // what of small is still to be handed out

	// lastRead is when anything was read last, or else when the connection was
	// made, by the wall clock: the monotonic one may stand still while the
	// machine sleeps, and it is then that connections die.
	lastRead atomic.Int64
}

// observe returns a connection that reads and writes c and reports to ev. If c
// has a ConnectionState, so has the result: the engine takes Response.TLS from
// there.
func observe(c net.Conn, ev Events, maxFrame uint32) (net.Conn, *observer) {
	o := &observer{gate: gate{ev: ev}, conn: c}
	o.lastRead.Store(time.Now().UnixNano())
	o.scan = newScanner(&o.gate, maxFrame)
	switch c := c.(type) {
	case *tls.Conn:
		return &tlsConn{c, o}, o
	case statefulConn:
		return &observedStatefulConn{c, o}, o
	}
	return &observedConn{c, o}, o
}

// read reads into p what the engine is to see. It returns 0 bytes only with an
// error.
func (o *observer) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if len(o.ready) > 0 {
			n := copy(p, o.ready)
			o.ready = o.ready[n:]
			return n, nil
		}
		if o.err != nil {
			o.Closed(o.err)
			return 0, o.err
		}
		buf := p
		if len(p) < frameHeaderLen {
			buf = o.small[:]
		}
		n := o.scan.release(buf)
		m, err := o.conn.Read(buf[n:])
		o.lastRead.Store(time.Now().UnixNano())
		n = o.scan.scan(buf[:n+m])
		if err != nil {
			// The engine never sets a read deadline, so that no error here
			// is one to read on after. The bytes that came with it, which are
			// the last answer when close_notify follows them, go first: who is
			// told that the connection has ended may close it.
			o.err = err
			if lost := o.lost(); lost != nil {
				o.err = lost // err is only how the engine is made to notice
			}
			n += o.scan.release(buf[n:])
		}
		if len(p) < frameHeaderLen {
			o.ready = buf[:n]
			continue
		}
		if n > 0 {
			return n, nil
		}
	}
}

// close closes the connection: by TLS's close_notify if the peer takes it in
// time, else by closing the connection under it.
func (o *observer) close() error {
	o.Closed(net.ErrClosed)
	if _, ok := o.conn.(netConner); ok {
		t := time.AfterFunc(closeNotifyTimeout, func() { o.cut() })
		defer t.Stop()
	}
	return o.conn.Close()
}

// lose ends the connection because its peer is not there any more. The engine's
// next Read fails with err, and it closes what is left.
func (o *observer) lose(err *lostError) {
	o.Closed(err)
	o.cut()
}

// cut ends the connection without a word to the peer if there is a connection
// under it that can be closed.
func (o *observer) cut() error {
	if outer, ok := o.conn.(netConner); ok {
		return outer.NetConn().Close()
	}
	return o.conn.Close()
}

// netConner is implemented by *tls.Conn and its like.
type netConner interface {
	NetConn() net.Conn
}

// tlsConn is an observed *tls.Conn.
type tlsConn struct {
	*tls.Conn
	o *observer
}

func (c *tlsConn) Read(p []byte) (int, error) { return c.o.read(p) }
func (c *tlsConn) Close() error               { return c.o.close() }

// statefulConn is a connection of another TLS implementation, or one that
// wraps a *tls.Conn.
type statefulConn interface {
	net.Conn
	ConnectionState() tls.ConnectionState
}

type observedStatefulConn struct {
	statefulConn
	o *observer
}

func (c *observedStatefulConn) Read(p []byte) (int, error) { return c.o.read(p) }
func (c *observedStatefulConn) Close() error               { return c.o.close() }

// observedConn is any other connection.
type observedConn struct {
	net.Conn
	o *observer
}

func (c *observedConn) Read(p []byte) (int, error) { return c.o.read(p) }
func (c *observedConn) Close() error               { return c.o.close() }
