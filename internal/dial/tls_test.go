package dial_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/h2coalesce/h2coalesce/internal/dial"
)

var quiet = log.New(io.Discard, "", 0)

func TestC3_Verified(t *testing.T) {
	ca := newAuthority(t)
	tests := []struct {
		name       string
		client     *tls.Config
		serverName string // the SNI that the server sees
		verified   bool
	}{
		{"the host by default", &tls.Config{RootCAs: ca.Pool}, "a.example", true},
		{"fixed ServerName", &tls.Config{RootCAs: ca.Pool, ServerName: "b.example"}, "b.example", true},
		{"InsecureSkipVerify", &tls.Config{InsecureSkipVerify: true}, "a.example", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			sni := make(chan string, 1)
			server := ca.Server(t, "a.example", "b.example")
			server.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				sni <- hello.ServerName
				return nil, nil
			}
			addr := listen(t, server)
			test.client.NextProtos = []string{"spdy/1"} // the Target's are offered instead
			base := http.DefaultTransport.(*http.Transport).Clone()
			base.TLSClientConfig = test.client
			r := mustDial(t, dial.New(base, nil), target("a.example", addr))
			if got := <-sni; got != test.serverName || r.TLS.ServerName != got {
				t.Errorf("server saw %q, state has %q, want %q", got, r.TLS.ServerName, test.serverName)
			}
			if got := len(r.TLS.VerifiedChains) > 0; got != test.verified {
				t.Errorf("verified = %t, want %t", got, test.verified)
			}
			if r.TLS.NegotiatedProtocol != "h2" {
				t.Errorf("negotiated %q, want h2", r.TLS.NegotiatedProtocol)
			}
			if _, ok := r.Conn.(*tls.Conn); !ok {
				t.Errorf("Conn is a %T", r.Conn)
			}
			if r.RemoteAddr != addr {
				t.Errorf("RemoteAddr %v, want %v", r.RemoteAddr, addr)
			}
			if r.Verify != nil || r.ClientCert {
				t.Errorf("Verify or ClientCert is set: %+v", r)
			}
			if diff := cmp.Diff([]string{"spdy/1"}, test.client.NextProtos); diff != "" || base.TLSClientConfig.ServerName != test.client.ServerName {
				t.Errorf("the base's TLSClientConfig was modified")
			}
		})
	}
}

func TestP9_ProtocolsAreTheTargets(t *testing.T) {
	ca := newAuthority(t)
	addr := listen(t, ca.Server(t, "a.example"))
	d := dial.New(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool}}, nil)
	for _, protos := range [][]string{{"h2"}, {"http/1.1"}, nil} {
		to := target("a.example", addr)
		to.Protos = protos
		want := append(protos, "")[0]
		if r := mustDial(t, d, to); r.TLS.NegotiatedProtocol != want {
			t.Errorf("offered %q, negotiated %q", protos, r.TLS.NegotiatedProtocol)
		}
	}
}

func TestC6_VerifyIsTheConfigured(t *testing.T) {
	ca := newAuthority(t)
	addr := listen(t, ca.Server(t, "a.example"))
	pinned := errors.New("not the pinned key")
	d := dial.New(&http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: ca.Pool,
		VerifyConnection: func(state tls.ConnectionState) error {
			if state.ServerName != "a.example" {
				return pinned
			}
			return nil
		},
	}}, nil)
	r := mustDial(t, d, target("a.example", addr))
	if r.Verify == nil {
		t.Fatal("Verify is nil")
	}
	state := *r.TLS
	state.ServerName = "b.example"
	if err := r.Verify(state); err != pinned {
		t.Errorf("Verify for another host: %v, want %v", err, pinned)
	}
}

// TestC3_ZoneIsNotPartOfTheName: an IPv6 literal with a zone is verified
// against the address alone.
func TestC3_ZoneIsNotPartOfTheName(t *testing.T) {
	ca := newAuthority(t)
	server := ca.Server(t, "fe80::1")
	d := dial.New(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool}}, nil)
	d.SetDialAddr(func(_ context.Context, _, addr string) (net.Conn, error) {
		if want := "[fe80::1%eth0]:443"; addr != want {
			t.Errorf("dialed %s, want %s", addr, want)
		}
		return peer{connect(t, server), addr}, nil
	})
	addrs, err := d.Resolve(t.Context(), "fe80::1%eth0")
	if err != nil {
		t.Fatal(err)
	}
	r := mustDial(t, d, dial.Target{Host: "fe80::1%eth0", Port: 443, Addrs: addrs})
	if want := netip.MustParseAddrPort("[fe80::1%eth0]:443"); r.RemoteAddr != want {
		t.Errorf("RemoteAddr %v, want %v", r.RemoteAddr, want)
	}
}

// A peer is a connection with a remote address of some type of its own.
type peer struct {
	net.Conn
	addr string
}

func (p peer) RemoteAddr() net.Addr {
	if p.addr == "" {
		return nil
	}
	return p
}
func (peer) Network() string  { return "tcp" }
func (p peer) String() string { return p.addr }

func TestC9_RemoteAddr(t *testing.T) {
	ca := newAuthority(t)
	server := ca.Server(t, "a.example")
	tests := map[string]netip.AddrPort{
		"192.0.2.1:443":          netip.MustParseAddrPort("192.0.2.1:443"),
		"[::ffff:192.0.2.1]:443": netip.MustParseAddrPort("192.0.2.1:443"),
		"[2001:db8::1]:443":      netip.MustParseAddrPort("[2001:db8::1]:443"),
		"proxy.example:443":      {},
		"/run/socket":            {},
		"":                       {},
	}
	for addr, want := range tests {
		d := dial.New(&http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: ca.Pool},
			DialContext:     func(context.Context, string, string) (net.Conn, error) { return peer{connect(t, server), addr}, nil },
		}, nil)
		if r := mustDial(t, d, dial.Target{Host: "a.example", Port: 443}); r.RemoteAddr != want {
			t.Errorf("peer %q: RemoteAddr %v, want %v", addr, r.RemoteAddr, want)
		}
	}
}

func TestD_HandshakeErrors(t *testing.T) {
	ca := newAuthority(t)
	server := ca.Server(t, "a.example")
	plain := func(conn net.Conn) {
		defer conn.Close()
		_, _ = io.ReadFull(conn, make([]byte, 5))
		_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
	}
	tests := []struct {
		name  string
		base  *tls.Config
		serve func(net.Conn)
		check func(*testing.T, error)
	}{{
		name:  "another name",
		base:  &tls.Config{RootCAs: ca.Pool, ServerName: "b.example"},
		check: func(t *testing.T, err error) { as[x509.HostnameError](t, err) },
	}, {
		name:  "unknown authority",
		check: func(t *testing.T, err error) { as[x509.UnknownAuthorityError](t, err) },
	}, {
		name:  "no TLS",
		serve: plain,
		check: func(t *testing.T, err error) {
			// http.Client asserts on the type to say "server gave HTTP response".
			if _, ok := err.(tls.RecordHeaderError); !ok {
				t.Errorf("error is a %T, want a tls.RecordHeaderError", err)
			}
		},
	}}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var conn *spy
			d := dial.New(&http.Transport{
				TLSClientConfig: test.base,
				DialContext: func(context.Context, string, string) (net.Conn, error) {
					if test.serve == nil {
						conn = newSpy(connect(t, server))
					} else {
						conn = newSpy(connectWith(t, test.serve))
					}
					return conn, nil
				},
			}, nil)
			r, err := d.Dial(t.Context(), dial.Target{Host: "a.example", Port: 443})
			if err == nil {
				t.Fatalf("got %+v, want an error", r)
			}
			test.check(t, err)
			if !conn.Closed() {
				t.Error("the socket is open")
			}
		})
	}
}

// mute returns a transport that dials peers who never say anything, and the
// connection it made last.
func mute(timeout time.Duration) (*http.Transport, func() *spy) {
	var conn *spy
	return &http.Transport{
		TLSHandshakeTimeout: timeout,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			client, _ := net.Pipe()
			conn = newSpy(client)
			return conn, nil
		},
	}, func() *spy { return conn }
}

func TestD_TLSHandshakeTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base, conn := mute(10 * time.Second)
		_, want := base.RoundTrip(newRequest(t, "https://a.example"))

		began := time.Now()
		var ev events
		_, err := dial.New(base, nil).Dial(ev.trace(t.Context()), dial.Target{Host: "a.example", Port: 443})
		if after := time.Since(began); after != 10*time.Second {
			t.Errorf("returned after %v, want 10s", after)
		}
		if err == nil || err.Error() != want.Error() {
			t.Errorf("error %q, net/http's %q", err, want)
		}
		for _, e := range []error{err, want} {
			ne, ok := e.(interface{ Timeout() bool })
			temp, _ := e.(interface{ Temporary() bool })
			if !ok || !ne.Timeout() || !temp.Temporary() || errors.Is(e, context.DeadlineExceeded) {
				t.Errorf("%T is not the timeout that net/http has", e)
			}
		}
		if !conn().Closed() {
			t.Error("the socket is open")
		}
		if diff := cmp.Diff([]string{"TLSHandshakeStart", "TLSHandshakeDone false " + want.Error()}, ev.list); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

func TestD_HandshakeEndsWithTheContext(t *testing.T) {
	tests := []struct {
		name    string
		timeout time.Duration // TLSHandshakeTimeout
		want    error
		after   time.Duration
		with    func(context.Context) (context.Context, context.CancelFunc)
	}{
		{"cancelled", 0, context.Canceled, time.Second, func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Second, cancel)
			return ctx, cancel
		}},
		{"deadline before the timeout", 10 * time.Second, context.DeadlineExceeded, 2 * time.Second,
			func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, 2*time.Second)
			}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base, conn := mute(test.timeout)
				ctx, cancel := test.with(t.Context())
				defer cancel()
				began := time.Now()
				_, err := dial.New(base, nil).Dial(ctx, dial.Target{Host: "a.example", Port: 443})
				if after := time.Since(began); after != test.after {
					t.Errorf("returned after %v, want %v", after, test.after)
				}
				if !errors.Is(err, test.want) {
					t.Errorf("error %v, want %v", err, test.want)
				}
				if !conn().Closed() {
					t.Error("the socket is open")
				}
			})
		})
	}
}
