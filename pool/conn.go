package pool

import (
	"context"
	"crypto/tls"
	"errors"
	"net/netip"
)

var (
	// ErrClosed is what Get returns once the pool is closed.
	ErrClosed = errors.New("h2coalesce: transport closed")

	// ErrCanceled is what Get returns when Request.Cancel is closed. Its text
	// is net/http's.
	ErrCanceled = errors.New("net/http: request canceled")

	// ErrNotHTTP2 marks a dial whose server chose another protocol than
	// HTTP/2. An error that wraps it goes to the requests that waited for
	// that dial and does not count as a dial error. If it has a method
	// Abandon(), that is called when no request is left to receive the error,
	// so that what the error carries is not lost.
	ErrNotHTTP2 = errors.New("h2coalesce: server did not negotiate HTTP/2")

	// ErrUnusable is what Get returns to the requests that waited for a
	// connection which the server ended before they could be sent. Another
	// attempt may fare better; how many are made is up to the caller of Get.
	ErrUnusable = errors.New("h2coalesce: server closed the new connection before a request was sent")

	// ErrTurnedAway is ErrUnusable's counterpart for a connection that has ended
	// without a word of HTTP/2 from its server; the error says why, if that is
	// known. A server that does so since a client certificate is missing, for
	// instance, which in TLS 1.3 shows after the handshake only, will do so
	// again.
	ErrTurnedAway = errors.New("h2coalesce: server ended the new connection without a word")
)

// Conn is what the pool asks of an HTTP/2 connection.
type Conn interface {
	// Reserve takes one of the streams that the connection has left, for the
	// request that its user sends next. The pool counts streams itself; what
	// Reserve says is the last word. It must not block.
	Reserve() bool

	// Close ends the connection and the requests on it. It may block, but
	// not for long: the connection counts against the limits until then.
	Close() error
}

// Observer is how a connection tells the pool what happens on it. Its methods
// do not block and may be called from any goroutine, but not from within a
// call of the pool to the Conn.
type Observer interface {
	// Settings reports the server's limit on concurrent streams now in force.
	Settings(maxStreams uint32)
	// GoAway reports that the server takes no new streams (RFC 9113 §6.8).
	GoAway(lastStreamID, code uint32)
	// Unusable reports that the client's end of the connection takes no new
	// streams, without a word from the server.
	Unusable()
	// Origin reports the entries of an ORIGIN frame (RFC 8336), which need not
	// be origins, and how many more there were that the Conn has left out.
	Origin(entries []string, dropped int)
	// Closed reports that the connection has ended. The Conn closes what it
	// holds by itself then: to call Close could fail requests whose answers
	// have arrived and are still being read.
	Closed(err error)
}

// Target is what to dial.
type Target struct {
	Host      string       // A-labels in lower case, or an IP address
	Port      int          // 1 to 65535
	Partition string       // what is kept across connections, such as TLS sessions, is to be kept apart by it
	Addrs     []netip.Addr // the addresses that Host resolved to; nil without a Config.Resolve
}

// Dialed is a connection past its TLS handshake.
type Dialed struct {
	Conn       Conn
	TLS        *tls.ConnectionState            // nil if it cannot be seen; then the connection is never shared
	RemoteAddr netip.AddrPort                  // the peer's actual address
	ClientCert bool                            // a client certificate was sent, or may have been
	Verify     func(tls.ConnectionState) error // the VerifyConnection it was dialed with, or nil
}

// DialFunc dials target and reports to obs what happens on the connection,
// possibly before it returns. The context has the values of the request that
// the dial was begun for, but outlives that request. It ends when the pool is
// closed, when CloseIdle gives the dial up, and after the connection's Close.
type DialFunc func(ctx context.Context, target Target, obs Observer) (*Dialed, error)

// ResolveFunc returns all addresses of a host. The context ends when the pool
// is closed, which waits for the function to return.
type ResolveFunc func(ctx context.Context, host string) ([]netip.Addr, error)
