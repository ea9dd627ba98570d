package transport_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/h2coalesce/h2coalesce/internal/lab"
	"github.com/h2coalesce/h2coalesce/transport"
)

// dnsServer answers for the hosts it is given, until the test ends, and returns
// a resolver that asks it. The context goes to the connection that is made to it,
// as it does by default.
func dnsServer(t *testing.T, hosts map[string][]string) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		conn.Close()
		wg.Wait()
	})
	wg.Go(func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if reply, err := dnsReply(buf[:n], hosts); err == nil {
				conn.WriteTo(reply, from)
			}
		}
	})
	return &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
		},
	}
}

func dnsReply(query []byte, hosts map[string][]string) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	q := m.Questions[0]
	m.Header = dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true}
	m.Additionals = nil
	addrs, ok := hosts[strings.TrimSuffix(q.Name.String(), ".")]
	if !ok {
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, a := range addrs {
		if q.Type == dnsmessage.TypeA {
			m.Answers = append(m.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60},
				Body:   &dnsmessage.AResource{A: netip.MustParseAddr(a).As4()},
			})
		}
	}
	return m.Pack()
}

// dialEvents returns a context whose requests tell list, without their order
// lost, all that httptrace says until there is a connection.
func dialEvents(ctx context.Context) (traced context.Context, list func() []string) {
	var mu sync.Mutex
	var all []string
	add := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, fmt.Sprintf(format, args...))
	}
	traced = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(hostPort string) { add("GetConn %s", hostPort) },
		GotConn: func(i httptrace.GotConnInfo) {
			add("GotConn reused=%v idle=%v %v", i.Reused, i.WasIdle, i.Conn.RemoteAddr())
		},
		DNSStart: func(i httptrace.DNSStartInfo) { add("DNSStart %s", i.Host) },
		DNSDone: func(i httptrace.DNSDoneInfo) {
			add("DNSDone %v %v %v", i.Addrs, i.Coalesced, i.Err)
		},
		ConnectStart:      func(network, addr string) { add("ConnectStart %s %s", network, addr) },
		ConnectDone:       func(network, addr string, err error) { add("ConnectDone %s %s %v", network, addr, err) },
		TLSHandshakeStart: func() { add("TLSHandshakeStart") },
		TLSHandshakeDone: func(s tls.ConnectionState, err error) {
			add("TLSHandshakeDone %v %s %q %d %v", s.HandshakeComplete, s.ServerName, s.NegotiatedProtocol, len(s.PeerCertificates), err)
		},
	})
	return traced, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

// tracedFetch sends a GET, reads the answer, and returns the events of it.
func tracedFetch(t *testing.T, rt http.RoundTripper, url string, edit func(*http.Request)) ([]string, error) {
	t.Helper()
	ctx, list := dialEvents(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(req)
	}
	res, err := rt.RoundTrip(req)
	if err == nil {
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	return list(), err
}

// TestD_TraceOfDialsEqualsNetHTTPs has a real http.Transport and a Transport fetch
// the same from one server, and compares what httptrace tells of their dials, and
// the errors. A second fetch is from where the first one's connection is kept,
// or from a new one where it was not.
func TestD_TraceOfDialsEqualsNetHTTPs(t *testing.T) {
	hosts := map[string][]string{
		"one.example.com":   {"127.0.0.1"},
		"two.example.com":   {"127.0.0.2", "127.0.0.1"}, // nobody is at the first
		"down.example.com":  {"127.0.0.2"},
		"gone.example.com":  {"127.0.0.2", "127.0.0.3"},
		"other.example.org": {"127.0.0.1"},
	}
	const missing = "missing.example.com"
	closing := func(r *http.Request) { r.Close = true }
	tests := []struct {
		name, host string
		base       func(*http.Transport, *rig)
		edit       func(*http.Request)
		text       bool // the text of the error is ours
	}{
		{name: "one address", host: "one.example.com"},
		{name: "two addresses, the first refused", host: "two.example.com"},
		{name: "the only one refused", host: "down.example.com"},
		{name: "all refused", host: "gone.example.com", text: true},
		{name: "certificate for another name", host: "other.example.org"},
		{name: "no such host", host: missing},
		{name: "IP literal", host: "127.0.0.1"},
		{name: "IP literal, refused", host: "127.0.0.2"},
		{name: "Request.Close", host: "one.example.com", edit: closing},
		{name: "Request.Close, certificate for another name", host: "other.example.org", edit: closing},
		{name: "Request.Close, refused", host: "down.example.com", edit: closing},
		{name: "Request.Close, no such host", host: missing, edit: closing},
		{name: "DialContext", host: "one.example.com", base: func(b *http.Transport, r *rig) {
			b.DialContext = to("127.0.0.1")
		}},
		{name: "DialContext fails", host: "one.example.com", base: func(b *http.Transport, r *rig) {
			b.DialContext = to("127.0.0.2")
		}},
		{name: "DialContext returns nothing", host: "one.example.com", base: func(b *http.Transport, r *rig) {
			b.DialContext = func(context.Context, string, string) (net.Conn, error) { return nil, nil }
		}},
		{name: "DialTLSContext", host: "one.example.com", base: func(b *http.Transport, r *rig) {
			b.DialTLSContext = secured(r, "one.example.com", true)
		}},
		{name: "DialTLSContext before the handshake", host: "one.example.com", base: func(b *http.Transport, r *rig) {
			b.DialTLSContext = secured(r, "one.example.com", false)
		}},
		{name: "DialTLSContext before a handshake that fails", host: "one.example.com", base: func(b *http.Transport, r *rig) {
			b.DialTLSContext = secured(r, "one.example.org", false)
		}},
		{name: "DialTLSContext fails", host: "one.example.com", base: func(b *http.Transport, r *rig) {
			b.DialTLSContext = secured(r, "one.example.org", true)
		}},
		{name: "DialTLSContext hides TLS", host: "one.example.com", base: func(b *http.Transport, r *rig) {
			dial := secured(r, "one.example.com", true)
			b.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := dial(ctx, network, addr)
				return struct{ net.Conn }{conn}, err
			}
		}},
	}
	// With h2 the second request finds the connection; with the second server it
	// needs another one, which Base dials.
	for _, server := range []lab.Server{
		{Protos: []string{"h2", "http/1.1"}},
		{Protos: []string{"http/1.1"}},
		{Protos: []string{"http/1.1"}, GoAwayAfter: 1},
	} {
		server.Names = []string{"*.example.com", "127.0.0.1"}
		for _, test := range tests {
			if strings.HasPrefix(test.name, "DialTLSContext hides") && server.Protos[0] == "h2" {
				continue // nobody knows that it is HTTP/2
			}
			t.Run(fmt.Sprintf("%v %d %s", server.Protos, server.GoAwayAfter, test.name), func(t *testing.T) {
				r := newRig(t, map[string]lab.Server{"127.0.0.1": server})
				resolver := dnsServer(t, hosts)
				base := func() *http.Transport {
					b := &http.Transport{TLSClientConfig: r.TLSConfig(), ForceAttemptHTTP2: true}
					if test.base != nil {
						test.base(b, r)
					}
					return b
				}
				theirs := base()
				defer theirs.CloseIdleConnections()
				ours := &transport.Transport{Base: base()}
				defer ours.Close()
				if test.base == nil {
					theirs.DialContext = (&net.Dialer{Resolver: resolver}).DialContext
					ours.Resolver = resolver
				}
				url := r.URL(test.host, "/")
				for _, which := range []string{"first", "second"} {
					want, wantErr := tracedFetch(t, theirs, url, test.edit)
					got, gotErr := tracedFetch(t, ours, url, test.edit)
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("%s (-net/http +ours):\n%s", which, diff)
					}
					if fmt.Sprintf("%T", wantErr) != fmt.Sprintf("%T", gotErr) || !test.text && fmt.Sprint(wantErr) != fmt.Sprint(gotErr) {
						t.Errorf("%s: %T %v\nnet/http: %T %v", which, gotErr, gotErr, wantErr, wantErr)
					}
				}
			})
		}
	}
}

// to returns a dial function that connects to an address whatever it is given.
func to(ip string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(ip, port))
	}
}

// secured returns a DialTLSContext, which may leave the handshake to the caller.
func secured(r *rig, name string, handshake bool) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := to("127.0.0.1")(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		config := r.TLSConfig()
		config.ServerName = name
		config.NextProtos = []string{"h2", "http/1.1"}
		c := tls.Client(conn, config)
		if !handshake {
			return c, nil
		}
		if err := c.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, err
		}
		return c, nil
	}
}

// TestP8_ErrorOfARequestNamesEveryAddress, where net/http's names the first.
func TestP8_ErrorOfARequestNamesEveryAddress(t *testing.T) {
	r := newRig(t, plain())
	r.Host("a.example.com", "127.0.0.2", "127.0.0.3")
	a := r.get("a.example.com")
	if a.err == nil {
		t.Fatalf("got %+v", a)
	}
	text := a.err.Error()
	for _, ip := range []string{"127.0.0.2", "127.0.0.3"} {
		if addr := fmt.Sprintf("%s:%d: ", ip, r.Port()); strings.Count(text, addr) != 1 {
			t.Errorf("error %q does not name %s once", text, addr)
		}
	}
	if _, ok := a.err.(*net.OpError); !ok || !strings.HasPrefix(text, "dial tcp: ") {
		t.Errorf("%T %q is not the error of a dial", a.err, text)
	}
}

// TestD_HandshakeEventsAreInTime: what Base's own dials tell is told when it
// happens, since it is there to be measured.
func TestD_HandshakeEventsAreInTime(t *testing.T) {
	servers := map[string]lab.Server{"127.0.0.1": {
		Names: []string{"*.example.com"}, Protos: []string{"http/1.1"},
		HandshakeDelay: time.Second, GoAwayAfter: 1,
	}}
	bubble(t, servers, func(r *rig) {
		for i := range 2 {
			var start time.Time
			var took time.Duration
			ctx := httptrace.WithClientTrace(r.t.Context(), &httptrace.ClientTrace{
				TLSHandshakeStart: func() { start = time.Now() },
				TLSHandshakeDone:  func(tls.ConnectionState, error) { took = time.Since(start) },
			})
			r.okContext(ctx, "a.example.com")
			if took != time.Second {
				t.Errorf("connection %d: the handshake took %v by its events, want 1s", i+1, took)
			}
		}
		r.wantHandshakes(2)
	})
}

// TestP8_BadDialers: whatever a dial function or resolver does, requests end, and
// so does Close.
func TestP8_BadDialers(t *testing.T) {
	lost := errors.New("lost")
	for _, test := range []struct {
		name     string
		resolver func(context.Context) ([]netip.Addr, error)
		dial     func(ctx context.Context) (net.Conn, error)
		want     func(error) bool
	}{
		{name: "resolver: nothing", resolver: func(context.Context) ([]netip.Addr, error) { return nil, nil }, want: notFound},
		{name: "resolver: invalid", resolver: func(context.Context) ([]netip.Addr, error) { return make([]netip.Addr, 3), nil }, want: notFound},
		{name: "resolver: error", resolver: func(context.Context) ([]netip.Addr, error) { return nil, lost }, want: func(err error) bool { return errors.Is(err, lost) }},
		{name: "resolver: never", resolver: func(context.Context) ([]netip.Addr, error) {
			time.Sleep(24 * time.Hour)
			return nil, nil
		}, want: timedOut},
		{name: "dialer: never", dial: func(context.Context) (net.Conn, error) {
			time.Sleep(24 * time.Hour)
			return nil, lost
		}, want: timedOut},
		{name: "dialer: typed nil, late", dial: func(ctx context.Context) (net.Conn, error) {
			<-ctx.Done()
			return (*tls.Conn)(nil), lost
		}, want: timedOut},
		{name: "dialer: nothing", dial: func(context.Context) (net.Conn, error) { return nil, nil }, want: func(err error) bool {
			return strings.Contains(err.Error(), "hook returned (nil, nil)")
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, nil, func(r *rig) {
				if test.resolver != nil {
					r.tr.Resolver = resolving(test.resolver)
				}
				if test.dial != nil {
					r.tr.Base.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return test.dial(ctx) }
				}
				ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
				defer cancel()
				a := r.do(r.request(ctx, http.MethodGet, "a.example.com", nil))
				if a.err == nil || !test.want(a.err) {
					t.Errorf("got %v", a.err)
				}
				began := time.Now()
				r.tr.Close()
				if took := time.Since(began); took != 0 {
					t.Errorf("Close took %v", took)
				}
				time.Sleep(24 * time.Hour) // no bubble ends before the goroutines in it
			})
		})
	}
}

type resolving func(context.Context) ([]netip.Addr, error)

func (f resolving) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) { return f(ctx) }

func notFound(err error) bool {
	e, ok := errors.AsType[*net.DNSError](err)
	return ok && e.IsNotFound
}

func timedOut(err error) bool { return errors.Is(err, context.DeadlineExceeded) }

// odd is a connection whose peer has no address, or one of its own kind.
type odd struct {
	net.Conn
	addr net.Addr
}

func (c odd) RemoteAddr() net.Addr { return c.addr }

// TestP8_OddRemoteAddresses: such a connection serves its host, and nobody else
// by address.
func TestP8_OddRemoteAddresses(t *testing.T) {
	for name, addr := range map[string]net.Addr{
		"nil":       nil,
		"typed nil": (*net.TCPAddr)(nil),
		"unix":      &net.UnixAddr{Name: "/run/socket", Net: "unix"},
		"a name":    &net.UnixAddr{Name: "proxy.example:443", Net: "tcp"},
	} {
		for _, protos := range [][]string{{"h2", "http/1.1"}, {"http/1.1"}} {
			t.Run(name+" "+protos[0], func(t *testing.T) {
				servers := map[string]lab.Server{"127.0.0.1": {Names: []string{"*.example.com"}, Protos: protos}}
				bubble(t, servers, func(r *rig) {
					r.tr.Base.DialContext = func(ctx context.Context, network, hostPort string) (net.Conn, error) {
						conn, err := r.DialContext(ctx, network, hostPort)
						return odd{conn, addr}, err
					}
					a, again, b := r.ok("a.example.com"), r.ok("a.example.com"), r.ok("b.example.com")
					if a != again || a == b {
						t.Errorf("connections %s, %s for a, %s for b", a, again, b)
					}
				})
			})
		}
	}
}
