package h2

import (
	"crypto/tls"
	"net"
	"time"
)

// closeNotifyTimeout bounds the attempt to tell the peer of a close. crypto/tls
// waits 5 s for a peer that reads nothing, and the engine's own bound applies
// to a bare *tls.Conn only.
const closeNotifyTimeout = 250 * time.Millisecond

// An observer does the work of an observing connection. Its read is called by
// one goroutine, its close by any.
type observer struct {
	gate
	scan  *scanner
	err   error                // of the underlying Read; nothing is read after it
	small [frameHeaderLen]byte // stands in for a buffer too small for a frame header
	ready []byte               // what of small is still to be handed out
}

// observe returns a connection that reads and writes c and reports to ev. If c
// has a ConnectionState, so has the result: the engine takes Response.TLS from
// there.
func observe(c net.Conn, ev Events, maxFrame uint32) (net.Conn, *observer) {
	o := &observer{gate: gate{ev: ev}}
	o.scan = newScanner(&o.gate, maxFrame)
	switch c := c.(type) {
	case *tls.Conn:
		return &tlsConn{c, o}, o
	case statefulConn:
		return &observedStatefulConn{c, o}, o
	}
	return &observedConn{c, o}, o
}

// read reads from c into p what the engine is to see. It returns 0 bytes only
// with an error.
func (o *observer) read(c net.Conn, p []byte) (int, error) {
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
		m, err := c.Read(buf[n:])
		n = o.scan.scan(buf[:n+m])
		if err != nil {
			// The engine never sets a read deadline, so that no error here
			// is one to read on after. The bytes that came with it, which are
			// the last answer when close_notify follows them, go first: who is
			// told that the connection has ended may close it.
			o.err = err
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

// close closes c: by TLS's close_notify if the peer takes it in time, else by
// closing the connection under it.
func (o *observer) close(c net.Conn) error {
	o.Closed(net.ErrClosed)
	if outer, ok := c.(interface{ NetConn() net.Conn }); ok {
		t := time.AfterFunc(closeNotifyTimeout, func() { outer.NetConn().Close() })
		defer t.Stop()
	}
	return c.Close()
}

// tlsConn is an observed *tls.Conn.
type tlsConn struct {
	*tls.Conn
	o *observer
}

func (c *tlsConn) Read(p []byte) (int, error) { return c.o.read(c.Conn, p) }
func (c *tlsConn) Close() error               { return c.o.close(c.Conn) }

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

func (c *observedStatefulConn) Read(p []byte) (int, error) { return c.o.read(c.statefulConn, p) }
func (c *observedStatefulConn) Close() error               { return c.o.close(c.statefulConn) }

// observedConn is any other connection.
type observedConn struct {
	net.Conn
	o *observer
}

func (c *observedConn) Read(p []byte) (int, error) { return c.o.read(c.Conn, p) }
func (c *observedConn) Close() error               { return c.o.close(c.Conn) }
