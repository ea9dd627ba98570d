package dial_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/h2coalesce/h2coalesce/internal/dial"
)

// An authority issues certificates that are valid today and at the beginning
// of a bubble's time.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	Pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	return newNamedAuthority(t, "test authority")
}

func newNamedAuthority(t testing.TB, name string) *authority {
	t.Helper()
	key := newKey(t)
	template := newTemplate()
	template.IsCA = true
	template.KeyUsage = x509.KeyUsageCertSign
	template.Subject = pkix.Name{CommonName: name}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{cert: cert, key: key, Pool: x509.NewCertPool()}
	a.Pool.AddCert(cert)
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newTemplate() *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		NotBefore:             time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(2199, 1, 1, 0, 0, 0, 0, time.UTC),
		BasicConstraintsValid: true,
	}
}

// Issue returns a certificate for host names and IP addresses.
func (a *authority) Issue(t testing.TB, names ...string) tls.Certificate {
	t.Helper()
	template := newTemplate()
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Server returns a server configuration for names.
func (a *authority) Server(t testing.TB, names ...string) *tls.Config {
	t.Helper()
	return &tls.Config{
		Certificates: []tls.Certificate{a.Issue(t, names...)},
		NextProtos:   []string{"h2", "http/1.1"},
	}
}

// eachVersion runs test with servers for a.example and b.example, which speak
// TLS 1.2 and 1.3 at most.
func (a *authority) eachVersion(t *testing.T, test func(*testing.T, *tls.Config)) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			server := a.Server(t, "a.example", "b.example")
			server.MaxVersion = version
			test(t, server)
		})
	}
}

// asking changes server to ask for a client certificate, if asks is set, and
// returns where each connection says whether there was one.
func (a *authority) asking(server *tls.Config, asks bool) <-chan bool {
	server.ClientCAs = a.Pool
	if asks {
		server.ClientAuth = tls.VerifyClientCertIfGiven
	}
	seen := make(chan bool, 1)
	server.VerifyConnection = func(state tls.ConnectionState) error {
		seen <- len(state.PeerCertificates) > 0
		return nil
	}
	return seen
}

// listen serves TLS on a loopback port until the test ends. Each connection is
// greeted with a byte, so that a client that reads it has the session tickets.
func listen(t testing.TB, cfg *tls.Config) netip.AddrPort {
	t.Helper()
	return listenWith(t, func(conn net.Conn) { serveTLS(conn, cfg) })
}

func listenWith(t testing.TB, serve func(net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// connect returns a connection that a server with cfg waits on. It is a socket,
// for in a net.Pipe two peers that send alerts at once wait for each other.
func connect(t testing.TB, cfg *tls.Config) net.Conn {
	t.Helper()
	return connectWith(t, func(conn net.Conn) { serveTLS(conn, cfg) })
}

func connectWith(t testing.TB, serve func(net.Conn)) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", listenWith(t, serve).String())
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// serveTLS serves conn until the client closes it.
func serveTLS(conn net.Conn, cfg *tls.Config) {
	defer conn.Close()
	c := tls.Server(conn, cfg)
	if c.Handshake() != nil {
		return
	}
	if _, err := c.Write([]byte{'!'}); err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, c)
}

// readGreeting reads the byte that serveTLS writes, and with it all tickets.
func readGreeting(t testing.TB, conn net.Conn) {
	t.Helper()
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

// A spy is a connection that knows whether it was closed.
type spy struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func newSpy(conn net.Conn) *spy { return &spy{Conn: conn, closed: make(chan struct{})} }

func (s *spy) Close() error {
	s.once.Do(func() { close(s.closed) })
	return s.Conn.Close()
}

func (s *spy) Closed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

// target is host at addr, offering HTTP/2 first.
func target(host string, addr netip.AddrPort) dial.Target {
	return dial.Target{
		Host:   host,
		Port:   int(addr.Port()),
		Addrs:  []netip.Addr{addr.Addr()},
		Protos: []string{"h2", "http/1.1"},
	}
}

// mustDial returns the result of a Dial that must succeed, and closes its
// connection when the test ends.
func mustDial(t testing.TB, d *dial.Dialer, to dial.Target) *dial.Result {
	t.Helper()
	r, err := d.Dial(context.Background(), to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Conn.Close()
		d.Wait()
	})
	return r
}

// as asserts that err holds an error of type E.
func as[E error](t testing.TB, err error) E {
	t.Helper()
	e, ok := errors.AsType[E](err)
	if !ok {
		t.Fatalf("got error %v (%T), want it to hold a %T", err, err, e)
	}
	return e
}
