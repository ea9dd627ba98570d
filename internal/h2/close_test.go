package h2_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/h2coalesce/h2coalesce/internal/h2"
)

const closedByUs = "closed use of closed network connection"

func TestClosedOnceWhenCut(t *testing.T) {
	converse(t, new(http.Transport), func(t *testing.T, s *script) {
		s.settings()
		c := s.send(t.Context())
		s.wantRequest(1)
		s.sent(s.server.Close())
		c.wantRetry(h2.RetryNever)
		s.conn.Close()
		s.wantEvents("settings 1000", "closed EOF")
	})
}

func TestCloseEndsRequests(t *testing.T) {
	converse(t, new(http.Transport), func(t *testing.T, s *script) {
		s.settings()
		c := s.send(t.Context())
		s.wantRequest(1)
		var closes sync.WaitGroup
		for range 5 {
			closes.Go(func() { s.conn.Close() })
		}
		closes.Wait()
		c.wantRetry(h2.RetryNever)
		if s.conn.Reserve() {
			t.Error("Reserve after Close")
		}
		s.wantEvents("settings 1000", closedByUs)
	})
}

// A Read that meets nothing but ORIGIN frames does not return: there is nothing
// for the engine in them.
func TestCloseEndsAFlood(t *testing.T) {
	client, server := memPipe()
	var events eventLog
	conn := newConn(t, new(http.Transport), client, &events)
	flooded := make(chan struct{})
	go func() { // until the connection is closed
		defer close(flooded)
		fr := http2.NewFramer(server, nil)
		err := fr.WriteSettings()
		for err == nil {
			err = fr.WriteRawFrame(0xc, 0, 0, entry("https://b.example"))
		}
	}()
	for len(events.all()) < 100 {
		runtime.Gosched()
	}
	conn.Close()
	<-flooded
	lines := events.all()
	if i := slices.Index(lines, closedByUs); i != len(lines)-1 {
		t.Errorf("event %d of %d is %q", i, len(lines), closedByUs)
	}
}

func TestShutdown(t *testing.T) {
	converse(t, new(http.Transport), func(t *testing.T, s *script) {
		s.settings()
		c := s.send(t.Context())
		s.wantRequest(1)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.conn.Shutdown(ctx); err != context.DeadlineExceeded {
			t.Errorf("Shutdown with a request under way: %v", err)
		}
		if s.conn.Reserve() {
			t.Error("Reserve after Shutdown")
		}
		s.wantEvents("settings 1000")

		done := make(chan error, 1)
		go func() { done <- s.conn.Shutdown(t.Context()) }()
		s.respond(1, "200")
		c.wantStatus(200)
		if err := <-done; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		s.wantEvents("settings 1000", closedByUs)
	})
}

func TestShutdownOfStuckPeerEndsWithContext(t *testing.T) {
	converse(t, new(http.Transport), func(t *testing.T, s *script) {
		s.settings()
		s.client.fill()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.conn.Shutdown(ctx); err != context.DeadlineExceeded {
			t.Errorf("Shutdown: %v", err)
		}
	})
}

func TestNewConnOnDeadConnection(t *testing.T) {
	client, server := memPipe()
	server.Close()
	e, err := h2.NewEngine(new(http.Transport))
	if err != nil {
		t.Fatal(err)
	}
	var events eventLog
	if _, err := e.NewConn(client, &events); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("NewConn: %v", err)
	}
	if diff := cmp.Diff([]string{closedByUs}, events.all()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if _, err := client.Read(make([]byte, 1)); err != net.ErrClosed {
		t.Errorf("the connection was left open: Read: %v", err)
	}
}

// overTLS is converse over TLS. The handshake does not verify: the bubble's
// clock is years away from any certificate's validity.
func overTLS(t *testing.T, f func(*testing.T, *script)) {
	t.Helper()
	cert := selfSigned(t)
	synctest.Test(t, func(t *testing.T) {
		s := &script{t: t, events: new(eventLog)}
		s.client, s.server = memPipe()
		server := tls.Server(s.server, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}})
		client := tls.Client(s.client, &tls.Config{ServerName: "a.example", InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		go server.Handshake()
		if err := client.Handshake(); err != nil {
			t.Fatal(err)
		}
		s.conn = newConn(t, new(http.Transport), client, s.events)
		defer s.close()
		s.accept(server)
		f(t, s)
	})
}

func selfSigned(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"a.example"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestResponseTLS(t *testing.T) {
	overTLS(t, func(t *testing.T, s *script) {
		s.settings()
		payload := append([]byte{0, 17}, "https://b.example"...)
		s.sent(s.fr.WriteRawFrame(0xc, 0, 0, payload))
		c := s.send(t.Context())
		s.wantRequest(1)
		s.respond(1, "200")
		c.wantStatus(200)
		if st := c.res.TLS; st == nil || st.ServerName != "a.example" || st.NegotiatedProtocol != "h2" {
			t.Errorf("Response.TLS = %+v", st)
		}
		if _, ok := s.conn.NetConn().(interface{ NetConn() net.Conn }); !ok {
			t.Errorf("%T does not give access to the connection under TLS", s.conn.NetConn())
		}
		s.wantEvents("settings 1000", `origin ["https://b.example"] dropped 0`)
	})
}

func TestCloseTellsThePeer(t *testing.T) {
	overTLS(t, func(t *testing.T, s *script) {
		s.settings()
		start := time.Now()
		s.conn.Close()
		if d := time.Since(start); d != 0 {
			t.Errorf("Close took %v", d)
		}
		// A close without close_notify would be an unexpected EOF.
		var err error
		for err == nil {
			_, err = s.fr.ReadFrame()
		}
		if err.Error() != "EOF" {
			t.Errorf("the server read %v, want EOF", err)
		}
	})
}

func TestCloseOfStuckPeerIsBounded(t *testing.T) {
	tests := []struct {
		name string
		body string        // of a request on the way when Close is called; "-": no request
		want time.Duration // a write under way leaves no room for close_notify
	}{
		{"idle", "-", 250 * time.Millisecond},
		{"headers being written", "", 0},
		{"body being written", strings.Repeat("x", 1<<16), 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			overTLS(t, func(t *testing.T, s *script) {
				s.settings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
				var c *call
				switch tt.body {
				case "-":
					s.client.fill()
				case "":
					s.client.fill()
					c = s.send(t.Context())
				default:
					body, write := io.Pipe()
					c = s.start(request(t, t.Context(), http.MethodPost, body))
					s.wantRequest(1)
					s.client.fill()
					go io.WriteString(write, tt.body)
				}
				synctest.Wait()

				start := time.Now()
				s.conn.Close()
				if d := time.Since(start); d != tt.want {
					t.Errorf("Close took %v, want %v", d, tt.want)
				}
				if c != nil {
					c.wantRetry(h2.RetryNever)
				}
				s.wantEvents("settings 1000", closedByUs)
			})
		})
	}
}
