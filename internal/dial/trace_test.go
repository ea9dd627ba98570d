package dial_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/h2coalesce/h2coalesce/internal/dial"
)

// events collects what httptrace tells about dialing.
type events struct {
	mu    sync.Mutex
	list  []string
	addrs []net.IPAddr
}

func (e *events) add(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, fmt.Sprintf(format, args...))
}

func (e *events) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		DNSStart: func(httptrace.DNSStartInfo) { e.add("DNSStart") },
		DNSDone: func(info httptrace.DNSDoneInfo) {
			e.addrs = info.Addrs
			e.add("DNSDone %v", info.Err)
		},
		ConnectStart:      func(network, addr string) { e.add("ConnectStart %s %s", network, addr) },
		ConnectDone:       func(network, addr string, err error) { e.add("ConnectDone %s %s %v", network, addr, err) },
		TLSHandshakeStart: func() { e.add("TLSHandshakeStart") },
		TLSHandshakeDone: func(state tls.ConnectionState, err error) {
			e.add("TLSHandshakeDone %t %v", state.HandshakeComplete, err)
		},
	})
}

func newRequest(t testing.TB, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// TestD_TraceEqualsNetHTTPs runs the same dial through net/http and through
// this package, and compares all events and the errors.
func TestD_TraceEqualsNetHTTPs(t *testing.T) {
	ca := newAuthority(t)
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = ca.Server(t, "localhost", "127.0.0.1")
	// HTTP/1.1: net/http adds h2 to the TLSClientConfig that several cases share.
	server.TLS.NextProtos = nil
	server.Config.ErrorLog = quiet
	server.StartTLS()
	defer server.Close()
	port := server.Listener.Addr().(*net.TCPAddr).Port

	trusting := &tls.Config{RootCAs: ca.Pool}
	dialTLS := func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return tls.Client(conn, &tls.Config{RootCAs: ca.Pool, ServerName: "127.0.0.1"}), nil
	}
	tests := []struct {
		name, host string
		port       int
		base       *http.Transport
	}{
		{"name", "localhost", port, &http.Transport{TLSClientConfig: trusting}},
		{"literal", "127.0.0.1", port, &http.Transport{TLSClientConfig: trusting}},
		{"stock dialer", "127.0.0.1", port, func() *http.Transport {
			base := http.DefaultTransport.(*http.Transport).Clone()
			base.TLSClientConfig = trusting
			return base
		}()},
		{"refused", "127.0.0.1", 1, &http.Transport{}},
		{"untrusted", "localhost", port, &http.Transport{}},
		{"DialContext", "localhost", port, &http.Transport{
			TLSClientConfig: trusting,
			DialContext:     new(net.Dialer).DialContext,
		}},
		{"DialContext returns nothing", "localhost", port, &http.Transport{
			DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, nil },
		}},
		{"Dial returns nothing", "localhost", port, &http.Transport{
			//lint:ignore SA1019 the deprecated field is under test
			Dial: func(string, string) (net.Conn, error) { return nil, nil },
		}},
		{"DialTLSContext", "localhost", port, &http.Transport{DialTLSContext: dialTLS}},
		{"DialTLSContext returns nothing", "localhost", port, &http.Transport{
			DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return nil, nil },
		}},
		{"DialTLSContext, untrusted", "localhost", port, &http.Transport{
			DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, network, addr)
				if err != nil {
					return nil, err
				}
				return tls.Client(conn, &tls.Config{ServerName: "localhost"}), nil
			},
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var want events
			u := url.URL{Scheme: "https", Host: net.JoinHostPort(test.host, strconv.Itoa(test.port))}
			req := newRequest(t, u.String())
			resp, wantErr := test.base.RoundTrip(req.WithContext(want.trace(req.Context())))
			if wantErr == nil {
				resp.Body.Close()
			}
			test.base.CloseIdleConnections()

			var got events
			ctx := got.trace(t.Context())
			d := dial.New(test.base, nil)
			to := dial.Target{Host: test.host, Port: test.port}
			if d.Resolves() {
				addrs, err := d.Resolve(ctx, test.host)
				if err != nil {
					t.Fatal(err)
				}
				to.Addrs = addrs
			}
			r, gotErr := d.Dial(ctx, to)
			if gotErr == nil {
				r.Conn.Close()
			}
			d.Wait()

			if diff := cmp.Diff(want.list, got.list); diff != "" {
				t.Errorf("events (-net/http +Dial):\n%s", diff)
			}
			if fmt.Sprintf("%T %v", wantErr, wantErr) != fmt.Sprintf("%T %v", gotErr, gotErr) {
				t.Errorf("error %T %v, net/http's %T %v", gotErr, gotErr, wantErr, wantErr)
			}
		})
	}
}

func TestD_TraceOfAFailedHandshake(t *testing.T) {
	var ev events
	d := dial.New(&http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		server.Close()
		return client, nil
	}}, nil)
	_, err := d.Dial(ev.trace(t.Context()), dial.Target{Host: "a.example", Port: 443})
	if err == nil {
		t.Fatal("a handshake with nobody succeeded")
	}
	want := []string{"TLSHandshakeStart", fmt.Sprintf("TLSHandshakeDone false %v", err)}
	if diff := cmp.Diff(want, ev.list); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if errors.Is(err, context.Canceled) {
		t.Errorf("unexpected %v", err)
	}
}

// TestD_TraceOfASlowAddress has the first address swallow everything. The events
// are those of net/http, which races two families only: 127.0.0.2 stands for an
// address of the other one, so that the machine need not have both.
func TestD_TraceOfASlowAddress(t *testing.T) {
	ca := newAuthority(t)
	addr := listen(t, ca.Server(t, "a.example")) // outside of the bubble
	slow := netip.MustParseAddr("127.0.0.2")
	dialer := &net.Dialer{ControlContext: func(ctx context.Context, _, address string, _ syscall.RawConn) error {
		if netip.MustParseAddrPort(address).Addr() != slow {
			return nil
		}
		<-ctx.Done()
		return ctx.Err()
	}}
	synctest.Test(t, func(t *testing.T) {
		d := dial.New(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool}}, nil)
		d.SetDialAddr(dialer.DialContext)
		to := target("a.example", addr)
		to.Addrs = []netip.Addr{slow, addr.Addr()}
		var ev events
		began := time.Now()
		r, err := d.Dial(ev.trace(t.Context()), to)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 250*time.Millisecond {
			t.Errorf("it took %v, want 250ms", took)
		}
		r.Conn.Close()
		d.Wait()

		loser := slices.IndexFunc(ev.list, func(e string) bool { return strings.HasPrefix(e, "ConnectDone tcp 127.0.0.2") })
		if loser < 0 || !strings.HasSuffix(ev.list[loser], context.Canceled.Error()) {
			t.Fatalf("the loser's end is missing: %q", ev.list)
		}
		want := []string{
			fmt.Sprintf("ConnectStart tcp 127.0.0.2:%d", addr.Port()),
			fmt.Sprintf("ConnectStart tcp %v", addr),
			fmt.Sprintf("ConnectDone tcp %v <nil>", addr),
			"TLSHandshakeStart",
			"TLSHandshakeDone true <nil>",
		}
		// The loser's end may be told at any time.
		if diff := cmp.Diff(want, slices.Delete(ev.list, loser, loser+1)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}
