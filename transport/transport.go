package transport

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/pool"
)

// ErrClosed is the error of requests made after Close, and of those that wait
// for a connection when Close is called.
var ErrClosed = pool.ErrClosed

// Transport is an http.RoundTripper that sends requests for different hosts
// on one HTTP/2 connection where that is safe. The zero value is ready to use.
//
// It is safe for concurrent use by multiple goroutines and must not be copied.
// Its fields must not be changed after the first call of a method.
type Transport struct {
	// Base provides TLS, dialing, proxies, HTTP/1.1 and timeouts. It is cloned
	// on first use and never modified; nil means http.DefaultTransport.
	// Protocols registered with it are heeded but for "http" and "https".
	// HTTP/2 is attempted unless Base forbids it, by Protocols without HTTP2
	// or by a TLSNextProto that is not nil and has no "h2". MaxConnsPerHost
	// and MaxIdleConnsPerHost bound its HTTP/1.1 connections only.
	//
	// Where Base has a Dial, DialContext, DialTLS or DialTLSContext of its
	// own, that function is given host:port, and nothing is looked up unless
	// Resolver is set too. The DialContext of http.DefaultTransport and its
	// clones does not count as one's own: looked-up addresses are dialed
	// through it.
	Base *http.Transport

	// Policy says when connections are shared. Its zero value shares where
	// certificate and address permit it.
	Policy coalesce.Policy

	// Limits bound the HTTP/2 connections; where they are zero, some come from
	// Base. SetLimits changes them later.
	Limits pool.Limits

	// Resolver looks up the hosts of https URLs, and of proxies that are
	// reached by https; nil means net.DefaultResolver, or nobody if Base has a
	// dial function of its own. What is reached by plain HTTP is dialed by
	// Base as ever.
	Resolver Resolver

	// MisdirectedTTL is how long a host that was answered 421 is kept off every
	// connection to the same address with the same certificate. Zero means
	// 10 minutes; negative means that it is kept off the connection that
	// answered and no other.
	MisdirectedTTL time.Duration

	// MaxReplayBytes is the greatest ContentLength with which the body of a
	// request without GetBody is kept while it is sent, so that the request
	// can be sent again. Longer bodies, and those of unknown length, are not
	// kept, and are not sent on another host's connection before their host
	// has been answered on it. Zero means 64 KiB; negative means to keep none.
	MaxReplayBytes int64

	// IsMisdirected, if not nil, reports whether a response other than a 421
	// means that the host is not served on this connection, as the 404 of a
	// gateway that routes by connection may. It is asked only about requests
	// that were sent on another host's connection and can be sent again; the
	// answer to the request sent again is final. It may be called
	// concurrently and must not read the body.
	IsMisdirected func(*http.Response) bool

	once sync.Once
	core *core
}

var _ http.RoundTripper = (*Transport)(nil)

// Resolver looks up the addresses of hosts. *net.Resolver is one. It is called
// concurrently, with network "ip", and should return all addresses, since any
// of them may justify sharing a connection.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// RoundTrip sends a request and returns the response to it, as the
// http.RoundTripper contract has it. A request that was misdirected has been
// sent again by then where that is possible; see MisdirectedError for when it
// could not be.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	return t.ready().roundTrip(req)
}

// CloseIdleConnections closes the connections that carry no request, HTTP/1.1
// ones included, and ends the dials that no request waits for.
func (t *Transport) CloseIdleConnections() { t.ready().closeIdle() }

// Close closes every HTTP/2 connection, with the requests on it, and ends the
// context of each look-up and dial under way. It returns when the connections
// are closed and the look-ups have ended; a dial function or resolver that does
// not heed its context may outlast it. Requests that wait for a connection, and
// later ones, fail with ErrClosed. HTTP/1.1 connections are closed when their
// requests end. Close returns nil, and may be called more than once.
func (t *Transport) Close() error { return t.ready().close() }

// SetLimits replaces Limits, with effect at once: connections in excess are
// closed as soon as they are idle, and requests that wait for room get it.
func (t *Transport) SetLimits(l pool.Limits) {
	c := t.ready()
	c.pool.SetLimits(c.limits(l))
}

// Stats returns a snapshot of the HTTP/2 connections and their requests. Requests
// that Base sends are not counted.
func (t *Transport) Stats() pool.Stats { return t.ready().pool.Stats() }

// Conns describes the open HTTP/2 connections, oldest first.
func (t *Transport) Conns() []pool.ConnInfo { return t.ready().pool.Conns() }

// Explain tells on which connection a GET of rawURL would be sent now, with
// the partition and the other options of ctx, and why not on the others. It
// opens nothing and changes nothing, but may look the host up, and asks
// Policy.Allow and VerifyConnection. The Reason of a host for which a
// connection would be dialed is "dialed", and its Conn is 0; that of a host
// which would wait for another host's handshake is "joined", and Conn is 0 until
// that has ended. For requests that are Base's (plain HTTP, proxies, hosts known
// to speak HTTP/1.1) the Reason is "disabled". A look-up that fails is an error
// where the request would fail with it.
func (t *Transport) Explain(ctx context.Context, rawURL string) (coalesce.Decision, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // without the URL, which may hold a password
		}
		return coalesce.Decision{}, fmt.Errorf("h2coalesce: cannot explain a URL: %w", err)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return coalesce.Decision{}, fmt.Errorf("h2coalesce: cannot explain %q: not an http or https URL", u.Redacted())
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return coalesce.Decision{}, err
	}
	return t.ready().explain(req)
}

func (t *Transport) ready() *core {
	t.once.Do(func() { t.core = newCore(t) })
	return t.core
}
