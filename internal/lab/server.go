package lab

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
)

// Server is the script of one server. The zero value of each field but the
// certificate is an ordinary server. The hooks are called concurrently, those
// that take a Request each on its request's own goroutine, in the order Delay,
// Refuse, Reset, Misdirected, Handler.
type Server struct {
	// Names are the subjectAltNames of a certificate issued for this server.
	// See CA.Issue. Unused if Cert or Certificates is set.
	Names []string
	// Cert is used instead of a certificate for Names.
	Cert *tls.Certificate
	// Certificates chooses a certificate for each handshake. It overrides Names
	// and Cert.
	Certificates func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Protos are the protocols offered by ALPN. Nil: h2 and http/1.1. Empty: no
	// ALPN. A connection on which h2 was not negotiated is served as HTTP/1.1.
	Protos []string
	// ClientAuth and ClientCAs say whether a client certificate is asked for.
	ClientAuth tls.ClientAuthType
	ClientCAs  *x509.CertPool
	// TLS, if set, changes the server's TLS configuration before it is used.
	TLS func(*tls.Config)

	// Handler answers. Nil: status 200, the headers X-Lab-Conn (the
	// connection's number) and X-Lab-Host (the request's authority), and the
	// body "host=<authority> conn=<number>\n", after the request's body was
	// read to its end.
	Handler http.Handler
	// Misdirected chooses the requests that are answered 421, without a look at
	// their bodies. Nil: none.
	Misdirected func(*Request) bool
	// Delay is how long a request waits before anything is done about it.
	Delay func(*Request) time.Duration
	// Refuse chooses the requests that are refused: by RST_STREAM with
	// REFUSED_STREAM, or on HTTP/1.1 by closing the connection.
	Refuse func(*Request) bool
	// Reset chooses the requests that are ended by RST_STREAM with a code, or
	// on HTTP/1.1 by closing the connection.
	Reset func(*Request) (http2.ErrCode, bool)

	// Origins are listed in an ORIGIN frame that follows SETTINGS. Nil: no
	// frame. Empty: an empty frame.
	Origins []string
	// MaxStreams is SETTINGS_MAX_CONCURRENT_STREAMS. 0: not sent, no limit.
	// Streams above it are answered REFUSED_STREAM.
	MaxStreams uint32
	// Settings are sent with the first SETTINGS, after the lab's own and
	// overriding them.
	Settings []http2.Setting
	// HandshakeDelay is how long the server waits before the TLS handshake.
	HandshakeDelay time.Duration
	// SettingsDelay is how long the server waits before it sends its SETTINGS.
	// It reads and sends nothing before.
	SettingsDelay time.Duration
	// GoAwayAfter closes a connection gracefully when that many requests have
	// arrived on it: GOAWAY with NO_ERROR and the last request's stream, then
	// the end of the connection when the responses are complete. On HTTP/1.1
	// the last response says "Connection: close". 0: never.
	GoAwayAfter int

	// OnConn is called with each connection when it is ready: on HTTP/2 after
	// SETTINGS were sent and before anything is read. The connection is not
	// served until it returns.
	OnConn func(*Conn)
}

// Request is what scripts and the record know of a request.
type Request struct {
	Conn      int    // the connection's number
	Stream    uint32 // 0 on HTTP/1.1
	SNI       string // of the connection
	Authority string // :authority or Host, as sent
	Method    string
	Path      string // with the query
	LocalAddr string // the server's address and port
	Header    http.Header
	First     bool // first request for this authority on this connection
}

// Host is the authority without its port.
func (r *Request) Host() string {
	host, _, found := strings.Cut(r.Authority, ":")
	if !found || strings.HasPrefix(r.Authority, "[") {
		host = r.Authority
		if i := strings.LastIndexByte(host, ']'); i > 0 {
			host = host[1:i]
		}
	}
	return host
}

// IP is the server's address.
func (r *Request) IP() netip.Addr { return ipOf(r.LocalAddr) }

// tlsConfig makes the configuration all connections of a server share, session
// ticket keys included.
func (s *Server) tlsConfig(ca *CA) (*tls.Config, error) {
	config := &tls.Config{
		ClientAuth: s.ClientAuth,
		ClientCAs:  s.ClientCAs,
		NextProtos: s.Protos,
	}
	if s.Protos == nil {
		config.NextProtos = []string{"h2", "http/1.1"}
	}
	switch {
	case s.Certificates != nil:
		config.GetCertificate = s.Certificates
	case s.Cert != nil:
		config.Certificates = []tls.Certificate{*s.Cert}
	case s.Names != nil:
		cert, err := ca.Issue(s.Names)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{cert}
	default:
		return nil, fmt.Errorf("lab: a server needs Names, Cert or Certificates")
	}
	if s.TLS != nil {
		s.TLS(config)
	}
	return config, nil
}

// broken asks the hooks whether the request is to be ended without an answer.
func (s *Server) broken(req *Request) (http2.ErrCode, bool) {
	if s.Refuse != nil && s.Refuse(req) {
		return http2.ErrCodeRefusedStream, true
	}
	if s.Reset != nil {
		return s.Reset(req)
	}
	return 0, false
}

// answer writes the response to a request that is not broken.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, req *Request) {
	switch {
	case s.Misdirected != nil && s.Misdirected(req):
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusMisdirectedRequest)
		_, _ = io.WriteString(w, "misdirected: "+req.Authority+"\n")
	case s.Handler != nil:
		s.Handler.ServeHTTP(w, r)
	default:
		greet(w, r, req)
	}
}

// greet is the default handler.
func greet(w http.ResponseWriter, r *http.Request, req *Request) {
	if r.Body != http.NoBody {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
	}
	conn := strconv.Itoa(req.Conn)
	header := w.Header()
	header["Content-Type"] = []string{"text/plain; charset=utf-8"}
	header["X-Lab-Conn"] = []string{conn}
	header["X-Lab-Host"] = []string{req.Authority}
	_, _ = io.WriteString(w, "host="+req.Authority+" conn="+conn+"\n")
}
