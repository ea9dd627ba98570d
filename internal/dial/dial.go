package dial

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// dialFunc is the signature of [net.Dialer.DialContext].
type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// A Dialer makes the TLS connections of one Transport. It is safe for
// concurrent use.
type Dialer struct {
	base     *http.Transport
	resolver Resolver // nil: nothing is looked up

	// Exactly one of these is set. customTLS and custom are the caller's own
	// dial functions; dialAddr is a net.Dialer's, for literal addresses.
	customTLS dialFunc
	custom    dialFunc
	dialAddr  dialFunc

	// timeout is what the stock dialer's Timeout is to net/http: the limit of a
	// look-up, and of connecting to all addresses. 0 is none.
	timeout time.Duration

	// wg counts the goroutines that run dial functions and resolvers. Each of
	// them ends when its function returns.
	wg sync.WaitGroup
}

// A Target is what to connect to.
type Target struct {
	// Host is an A-label or an IP literal without brackets. It becomes the
	// ServerName unless TLSClientConfig fixes another.
	Host string
	Port int

	// Addrs are the looked-up addresses of Host, as Resolve returns them. With
	// none, the dial function is given Host itself. A custom dial function is
	// given Host in either case.
	Addrs []netip.Addr

	// Protos are the ALPN protocols to offer, the most wanted first.
	Protos []string

	// Partition keeps TLS sessions apart: one that was begun for a partition
	// is resumed for the same partition only. "" is no partition, whose
	// sessions the ClientSessionCache has under crypto/tls's own keys. It means
	// nothing without a ClientSessionCache, or with DialTLSContext or DialTLS.
	Partition string
}

// A Result is an established connection and what is known about it.
type Result struct {
	// Conn is a *tls.Conn, unless DialTLSContext or DialTLS returned
	// something else. Its handshake is complete.
	Conn net.Conn

	// TLS is the state after the handshake; nil if DialTLSContext or DialTLS
	// returned a connection that does not show it.
	TLS *tls.ConnectionState

	// RemoteAddr is the peer of the socket, an IPv4-mapped address unmapped;
	// the zero AddrPort if the peer has no IP address.
	RemoteAddr netip.AddrPort

	// ClientCert is true if the server was sent a client certificate, on this
	// connection or in a TLS session that it resumes, or may have been without
	// this package seeing it.
	ClientCert bool

	// Verify is the VerifyConnection of the TLSClientConfig that the handshake
	// used; nil if there was none.
	Verify func(tls.ConnectionState) error
}

// New returns a Dialer that connects as base would. base belongs to the caller
// and is neither modified here nor may it be modified afterwards. A nil
// resolver means that none was configured: then [net.DefaultResolver] is asked,
// or nobody, see [Dialer.Resolves].
func New(base *http.Transport, resolver Resolver) *Dialer {
	d := &Dialer{base: base, resolver: resolver}
	if d.customTLS = customDialTLS(base); d.customTLS == nil {
		if base.DialContext != nil && isStock(base.DialContext) {
			d.dialAddr, d.timeout = base.DialContext, stockTimeout
		} else if d.custom = customDial(base); d.custom == nil {
			d.dialAddr = new(net.Dialer).DialContext
		}
	}
	if d.resolver == nil && d.dialAddr != nil {
		d.resolver = net.DefaultResolver
	}
	return d
}

// Dial connects to t and completes the TLS handshake. It returns soon after ctx
// ends, also if a custom dial function does not heed ctx; a connection that
// such a function returns later is closed. If ctx has a Spare for t, that is
// the result.
//
// A custom dial function may tie the connection to the context that it is
// given. That ends with ctx, also after Dial has returned, so ctx is to end when
// the connection is closed, and not before. Only if HTTP/2 was not chosen does
// it never end, as with net/http, whose connection that then is.
func (d *Dialer) Dial(ctx context.Context, t Target) (*Result, error) {
	if r := spareFor(ctx, &t); r != nil {
		return r, nil
	}
	hostPort := net.JoinHostPort(t.Host, strconv.Itoa(t.Port))
	if d.customTLS == nil && d.custom == nil {
		conn, err := d.race(ctx, literals(t, hostPort))
		if err != nil {
			return nil, err
		}
		return d.secure(ctx, conn, t)
	}
	tied := tetherTo(ctx)
	r, err := d.dialCustom(ctx, tied, t, hostPort)
	switch {
	case err != nil:
		tied.cancel()
	case r.TLS == nil || r.TLS.NegotiatedProtocol != "h2":
		tied.release()
	}
	return r, err
}

// dialCustom is Dial for a custom dial function, which gets tied.
func (d *Dialer) dialCustom(ctx, tied context.Context, t Target, hostPort string) (*Result, error) {
	if d.customTLS != nil {
		conn, err := d.await(ctx, tied, d.customTLS, hostPort)
		if err != nil {
			return nil, err
		}
		return adopt(ctx, conn)
	}
	conn, err := d.await(ctx, tied, d.custom, hostPort)
	if err != nil {
		return nil, err
	}
	return d.secure(ctx, conn, t)
}

// literals returns the addresses to dial for t, in the order to try them.
func literals(t Target, hostPort string) []string {
	if len(t.Addrs) == 0 {
		return []string{hostPort}
	}
	list := make([]string, 0, len(t.Addrs))
	for _, addr := range interleave(t.Addrs) {
		list = append(list, netip.AddrPortFrom(addr, uint16(t.Port)).String())
	}
	return list
}

// remoteAddr returns the IP address and port of conn's peer, zero if it has
// none.
func remoteAddr(conn net.Conn) netip.AddrPort {
	var ap netip.AddrPort
	switch addr := conn.RemoteAddr().(type) {
	case nil:
	case *net.TCPAddr:
		ap = addr.AddrPort()
	default:
		ap, _ = netip.ParseAddrPort(addr.String())
	}
	if !ap.IsValid() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
