package dial

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"time"
)

// Returned for a dial function that breaks its contract, in net/http's words.
var (
	errNilDialContext = errors.New("net/http: Transport.DialContext hook returned (nil, nil)")
	errNilDial        = errors.New("net/http: Transport.Dial hook returned (nil, nil)")
	errNilDialTLS     = errors.New("net/http: Transport.DialTLS or DialTLSContext returned (nil, nil)")
)

// errExited is the outcome of a dial function or resolver that has called
// runtime.Goexit, as a test's Fatal does. net/http waits for it for ever.
var errExited = errors.New("h2coalesce: a dial function or resolver ended its goroutine")

// unlessPanicking, deferred, calls f when its function ends, also by
// runtime.Goexit. A panic is the end of the process, and nothing is to go on in
// the meantime.
func unlessPanicking(f func()) {
	if p := recover(); p != nil {
		panic(p)
	}
	f()
}

// tether is the context of a custom dial function. It ends with another one
// until it is released.
type tether struct {
	context.Context
	to     context.Context
	cancel context.CancelFunc
	stop   func() bool
}

func tetherTo(ctx context.Context) *tether {
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	return &tether{inner, ctx, cancel, context.AfterFunc(ctx, cancel)}
}

// Deadline is what the function has to heed while it runs.
func (t *tether) Deadline() (time.Time, bool) { return t.to.Deadline() }

// release lets t outlive the other one.
func (t *tether) release() { t.stop() }

// customDial returns base's DialContext, or else its Dial, or nil: net/http
// prefers them in this order.
func customDial(base *http.Transport) dialFunc {
	if base.DialContext != nil {
		return checked(base.DialContext, errNilDialContext)
	}
	//lint:ignore SA1019 who set the deprecated field expects it to be used
	return checked(withoutContext(base.Dial), errNilDial)
}

// customDialTLS returns base's DialTLSContext, or else its DialTLS, or nil.
func customDialTLS(base *http.Transport) dialFunc {
	if base.DialTLSContext != nil {
		return checked(base.DialTLSContext, errNilDialTLS)
	}
	//lint:ignore SA1019 as above
	return checked(withoutContext(base.DialTLS), errNilDialTLS)
}

func withoutContext(dial func(network, addr string) (net.Conn, error)) dialFunc {
	if dial == nil {
		return nil
	}
	return func(_ context.Context, network, addr string) (net.Conn, error) { return dial(network, addr) }
}

// checked returns dial with errNil for the answer nil, nil.
func checked(dial dialFunc, errNil error) dialFunc {
	if dial == nil {
		return nil
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if conn == nil && err == nil {
			err = errNil
		}
		return conn, err
	}
}

// await calls a custom dial function with the context tied, but waits no longer
// than until the end of ctx: Dial and DialTLS have no context to heed.
func (d *Dialer) await(ctx, tied context.Context, dial dialFunc, hostPort string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, dialError(hostPort, err)
	}
	done := make(chan attempt)
	d.wg.Go(func() {
		a := attempt{err: errExited}
		defer unlessPanicking(func() { a.deliver(ctx, done) })
		a.conn, a.err = dial(tied, "tcp", hostPort)
	})
	select {
	case a := <-done:
		return a.conn, a.err
	case <-ctx.Done():
		return nil, dialError(hostPort, ctx.Err())
	}
}

// adopt describes a connection that DialTLSContext or DialTLS returned, and
// completes its handshake if that is possible and was not done.
// TLSClientConfig and TLSHandshakeTimeout do not apply to it.
func adopt(ctx context.Context, conn net.Conn) (*Result, error) {
	r := &Result{
		Conn:       conn,
		RemoteAddr: remoteAddr(conn),
		// The configuration is out of sight, so a certificate may have been
		// sent. To guess otherwise would let a server that knows the
		// connection as one client, authenticated for one host, take another
		// host's requests as that client's (RFC 9113 §9.1.1 shares by the
		// server's certificate alone).
		ClientCert: true,
	}
	switch c := conn.(type) {
	case *tls.Conn:
		state, err := handshake(ctx, c, 0)
		if err != nil {
			conn.Close()
			return nil, err
		}
		r.TLS = &state
	case interface{ ConnectionState() tls.ConnectionState }:
		// A state before the end of the handshake proves nothing, and nobody
		// here can say when it ends.
		if state := c.ConnectionState(); state.HandshakeComplete {
			r.TLS = &state
		}
	}
	return r, nil
}
