package dial_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/h2coalesce/h2coalesce/internal/dial"
)

func TestP8_CustomDialGetsHostAndPort(t *testing.T) {
	ca := newAuthority(t)
	server := ca.Server(t, "a.example", v6a)
	tests := []struct {
		host, want string
		addrs      []netip.Addr
	}{
		{"a.example", "a.example:8443", nil},
		{"a.example", "a.example:8443", []netip.Addr{netip.MustParseAddr(v4a)}}, // a Resolver is set too
		{v6a, "[2001:db8::1]:8443", nil},
	}
	for _, test := range tests {
		check := func(network, addr string) (net.Conn, error) {
			if network != "tcp" || addr != test.want {
				t.Errorf("dialed %q, %q; want tcp, %q", network, addr, test.want)
			}
			return connect(t, server), nil
		}
		bases := map[string]*http.Transport{
			"Dial": {Dial: check},
			"DialContext": {
				DialContext: func(_ context.Context, network, addr string) (net.Conn, error) { return check(network, addr) },
				Dial:        func(string, string) (net.Conn, error) { return nil, errors.New("Dial called beside DialContext") },
			},
		}
		for name, base := range bases {
			t.Run(name+" "+test.want, func(t *testing.T) {
				base.TLSClientConfig = &tls.Config{RootCAs: ca.Pool}
				mustDial(t, dial.New(base, nil), dial.Target{Host: test.host, Port: 8443, Addrs: test.addrs})
			})
		}
	}
}

func TestP8_CustomDialThatIgnoresItsContext(t *testing.T) {
	type dialer = func(string, string) (net.Conn, error)
	tests := map[string]func(dialer) *http.Transport{
		//lint:ignore SA1019 the deprecated field is under test
		"Dial": func(f dialer) *http.Transport { return &http.Transport{Dial: f} },
		//lint:ignore SA1019 as above
		"DialTLS": func(f dialer) *http.Transport { return &http.Transport{DialTLS: f} },
	}
	for name, base := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := net.Pipe()
				defer server.Close()
				late := newSpy(client)
				d := dial.New(base(func(string, string) (net.Conn, error) {
					time.Sleep(time.Minute)
					return late, nil
				}), nil)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				began := time.Now()
				_, err := d.Dial(ctx, dial.Target{Host: "a.example", Port: 443})
				if after := time.Since(began); after != time.Second {
					t.Errorf("returned after %v, want 1s", after)
				}
				if e := as[*net.OpError](t, err); !e.Timeout() || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("error %v is no timeout", err)
				}
				d.Wait()
				if !late.Closed() {
					t.Error("the connection that came too late is open")
				}
			})
		})
	}
}

func TestP8_CustomDialIsNotCalledAfterTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d := dial.New(&http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		t.Error("called")
		return nil, errors.New("called")
	}}, nil)
	if _, err := d.Dial(ctx, dial.Target{Host: "a.example", Port: 443}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v is not context.Canceled", err)
	}
}

// TestP8_CustomDialKeepsItsContext: a connection that its dial function ties to
// the context lives on, as with net/http.
func TestP8_CustomDialKeepsItsContext(t *testing.T) {
	ca := newAuthority(t)
	server := ca.Server(t, "a.example")
	var given context.Context
	d := dial.New(&http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: ca.Pool},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			given = ctx
			return connect(t, server), nil
		},
	}, nil)
	mustDial(t, d, dial.Target{Host: "a.example", Port: 443})
	if err := given.Err(); err != nil {
		t.Errorf("the dial function's context ended: %v", err)
	}
}

// A hidden connection is TLS that shows nothing of it.
type hidden struct{ net.Conn }

// A shown connection shows its state, but is no *tls.Conn.
type shown struct {
	net.Conn
	state tls.ConnectionState
}

func (s shown) ConnectionState() tls.ConnectionState { return s.state }

func TestC3_DialTLSContext(t *testing.T) {
	ca := newAuthority(t)
	addr := listen(t, ca.Server(t, "a.example"))
	client := func(t *testing.T, ctx context.Context) *tls.Conn {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		return tls.Client(conn, &tls.Config{RootCAs: ca.Pool, ServerName: "a.example", NextProtos: []string{"h2"}})
	}
	complete := func(t *testing.T, ctx context.Context) *tls.Conn {
		c := client(t, ctx)
		if err := c.HandshakeContext(ctx); err != nil {
			t.Fatal(err)
		}
		return c
	}
	tests := []struct {
		name  string
		conn  func(t *testing.T, ctx context.Context) net.Conn
		state bool
	}{
		{"tls.Conn", func(t *testing.T, ctx context.Context) net.Conn { return complete(t, ctx) }, true},
		{"tls.Conn before its handshake", func(t *testing.T, ctx context.Context) net.Conn { return client(t, ctx) }, true},
		{"state shown", func(t *testing.T, ctx context.Context) net.Conn {
			c := complete(t, ctx)
			return shown{c, c.ConnectionState()}
		}, true},
		{"state shown before the handshake", func(t *testing.T, ctx context.Context) net.Conn {
			c := client(t, ctx)
			return shown{c, c.ConnectionState()}
		}, false},
		{"hidden", func(t *testing.T, ctx context.Context) net.Conn { return hidden{complete(t, ctx)} }, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := dial.New(&http.Transport{
				DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
					if network != "tcp" || addr != "a.example:443" {
						t.Errorf("dialed %q, %q", network, addr)
					}
					return test.conn(t, ctx), nil
				},
				DialContext: func(context.Context, string, string) (net.Conn, error) {
					t.Error("DialContext called beside DialTLSContext")
					return nil, errors.New("called")
				},
				// None of this applies.
				TLSClientConfig: &tls.Config{
					ServerName:       "b.example",
					VerifyConnection: func(tls.ConnectionState) error { return errors.New("asked") },
				},
				TLSHandshakeTimeout: 1,
			}, nil)
			r := mustDial(t, d, dial.Target{Host: "a.example", Port: 443, Protos: []string{"http/1.1"}})
			if r.Verify != nil {
				t.Error("Verify is of a configuration that was not used")
			}
			if !r.ClientCert {
				t.Error("C7: the client certificate of a hidden configuration counts as not sent")
			}
			if r.RemoteAddr != addr {
				t.Errorf("RemoteAddr %v, want %v", r.RemoteAddr, addr)
			}
			switch {
			case !test.state && r.TLS != nil:
				t.Error("TLS is set")
			case test.state && r.TLS == nil:
				t.Error("TLS is nil")
			case test.state && (r.TLS.NegotiatedProtocol != "h2" || len(r.TLS.VerifiedChains) == 0):
				t.Errorf("TLS is %+v", r.TLS)
			}
		})
	}
}

func TestC3_DialTLSContextFailedHandshake(t *testing.T) {
	ca := newAuthority(t)
	conn := newSpy(connect(t, ca.Server(t, "a.example")))
	d := dial.New(&http.Transport{DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
		return tls.Client(conn, &tls.Config{RootCAs: ca.Pool, ServerName: "b.example"}), nil
	}}, nil)
	if r, err := d.Dial(t.Context(), dial.Target{Host: "b.example", Port: 443}); err == nil {
		t.Errorf("got %+v, want an error", r)
	}
	if d.Wait(); !conn.Closed() {
		t.Error("the connection is open")
	}
}

// TestP8_CustomDialThatFailsLate: "return tls.Dial(…)" fails with a net.Conn that
// is a nil *tls.Conn, whose Close panics. Nobody is to call it.
func TestP8_CustomDialThatFailsLate(t *testing.T) {
	late := func(string, string) (net.Conn, error) {
		time.Sleep(time.Minute)
		return (*tls.Conn)(nil), errors.New("down")
	}
	for name, base := range map[string]*http.Transport{
		"Dial":    {Dial: late},
		"DialTLS": {DialTLS: late},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				d := dial.New(base, nil)
				if _, err := d.Dial(ctx, dial.Target{Host: "a.example", Port: 443}); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("error %v is no timeout", err)
				}
				d.Wait()
			})
		})
	}
}

func TestP8_CustomDialThatEndsItsGoroutine(t *testing.T) {
	exits := func(context.Context, string, string) (net.Conn, error) {
		runtime.Goexit()
		return nil, nil
	}
	for name, base := range map[string]*http.Transport{"DialContext": {DialContext: exits}, "DialTLSContext": {DialTLSContext: exits}} {
		t.Run(name, func(t *testing.T) {
			d := dial.New(base, nil)
			if r, err := d.Dial(t.Context(), dial.Target{Host: "a.example", Port: 443}); err == nil {
				t.Errorf("got %+v", r)
			}
			d.Wait()
		})
	}
}

// TestP9_TheContextOfACustomDialFunction: a connection may be tied to it. It ends
// with Dial's, which the pool ends after it has closed the connection; and with
// one that is net/http's to close, not at all.
func TestP9_TheContextOfACustomDialFunction(t *testing.T) {
	ca := newAuthority(t)
	roots := &tls.Config{RootCAs: ca.Pool}
	for _, test := range []struct {
		name   string
		protos []string
		ends   bool
	}{
		{"h2", []string{"h2", "http/1.1"}, true},
		{"http/1.1", []string{"http/1.1"}, false},
		{"no ALPN", nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := ca.Server(t, "a.example")
			server.NextProtos = test.protos
			type key struct{}
			var given context.Context
			connected := func(ctx context.Context, _, _ string) (net.Conn, error) {
				given = ctx
				if ctx.Value(key{}) != "kept" {
					t.Error("a value of the context is missing")
				}
				if _, ok := ctx.Deadline(); !ok {
					t.Error("the deadline is missing")
				}
				return connect(t, server), nil
			}
			secured := func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := connected(ctx, network, addr)
				return tls.Client(conn, &tls.Config{RootCAs: ca.Pool, ServerName: "a.example", NextProtos: []string{"h2"}}), err
			}
			if test.protos == nil {
				secured = nil // the client insists on h2
			}
			for _, base := range []*http.Transport{
				{DialContext: connected, TLSClientConfig: roots},
				{DialTLSContext: secured},
			} {
				if base.DialContext == nil && (secured == nil || !test.ends) {
					continue
				}
				ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "kept"), time.Hour)
				r, err := dial.New(base, nil).Dial(ctx, dial.Target{Host: "a.example", Port: 443, Protos: []string{"h2", "http/1.1"}})
				if err != nil {
					t.Fatal(err)
				}
				if given.Err() != nil {
					t.Error("it has ended before Dial's")
				}
				cancel()
				if test.ends {
					<-given.Done()
				} else if given.Err() != nil {
					t.Error("it has ended")
				}
				r.Conn.Close()
			}
		})
	}
}

func TestP8_TheContextOfACustomDialFunctionEndsWithAFailedDial(t *testing.T) {
	var given context.Context
	d := dial.New(&http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		given = ctx
		client, server := net.Pipe()
		server.Close() // no handshake will succeed
		return client, nil
	}}, nil)
	if _, err := d.Dial(t.Context(), dial.Target{Host: "a.example", Port: 443}); err == nil {
		t.Fatal("a handshake with nobody succeeded")
	}
	if given.Err() == nil {
		t.Error("it has not ended")
	}
}
