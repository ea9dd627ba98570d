package transport_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

// TestP9_WhatIsOfferedStaysForTheOthers: the connection that is made to ask again
// goes to a request that comes to need it later.
func TestP9_WhatIsOfferedStaysForTheOthers(t *testing.T) {
	servers := http1(func(s *lab.Server) {
		s.HandshakeDelay = time.Second
		s.Delay = func(*lab.Request) time.Duration { return time.Second }
		s.GoAwayAfter = 2
	})
	bubble(t, servers, func(r *rig) {
		r.tr.Base.MaxConnsPerHost = 1
		r.ok("a.example.com")
		time.Sleep(10 * time.Minute)
		var wg sync.WaitGroup
		for range 2 { // the first on the idle connection, its last
			wg.Go(func() { r.ok("a.example.com") })
		}
		wg.Wait()
		r.wantHandshakes(2)
	})
}

// TestP9_TheEndOfARequestBetweenHandOverAndUse: its connection is closed, or another
// request's.
func TestP9_TheEndOfARequestBetweenHandOverAndUse(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(r *rig, cancel context.CancelFunc)
	}{
		{"canceled", func(_ *rig, cancel context.CancelFunc) { cancel() }},
		{"canceled in a moment", func(_ *rig, cancel context.CancelFunc) { go cancel() }},
		{"Close", func(r *rig, _ context.CancelFunc) { go r.tr.Close() }},
		{"CloseIdleConnections", func(r *rig, _ context.CancelFunc) { go r.tr.CloseIdleConnections() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			outcomes := make(map[string]int)
			for i := range 30 {
				servers := http1(func(s *lab.Server) {
					s.Delay = func(*lab.Request) time.Duration { return time.Second }
				})
				bubble(t, servers, func(r *rig) {
					ctx, cancel := context.WithCancel(r.t.Context())
					defer cancel()
					ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
						TLSHandshakeDone: func(tls.ConnectionState, error) { test.end(r, cancel) },
					})
					var wg sync.WaitGroup
					others := i % 3 // which may take over the connection
					var body atomic.Int32
					wg.Go(func() {
						q := r.request(ctx, http.MethodPost, "a.example.com", countedBody{strings.NewReader("some"), &body})
						a := r.do(q)
						outcomes[fmt.Sprint(a.err)]++
					})
					synctest.Wait()
					for range others {
						wg.Go(func() { r.get("a.example.com") })
					}
					wg.Wait()
					synctest.Wait()
					if n := body.Load(); n != 1 {
						t.Errorf("the body was closed %d times", n)
					}
					r.tr.CloseIdleConnections()
					sleep(time.Minute) // a server may be about to answer still
					if n := r.openConns(); n != 0 {
						t.Fatalf("%d connections are open, neither used nor idle", n)
					}
				})
			}
			t.Log(outcomes)
		})
	}
}

// TestP9_AConnectionTiedToItsContext survives being handed over: in net/http the
// context of a dial function does not end when it has connected.
func TestP9_AConnectionTiedToItsContext(t *testing.T) {
	for _, protos := range [][]string{{"http/1.1"}, {"h2"}} {
		t.Run(protos[0], func(t *testing.T) {
			bubble(t, http1(func(s *lab.Server) { s.Protos = protos }), func(r *rig) {
				var ended atomic.Int32
				r.tr.Base.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
					conn, err := r.DialContext(ctx, network, addr)
					context.AfterFunc(ctx, func() {
						ended.Add(1)
						conn.Close()
					})
					return conn, err
				}
				for range 3 {
					r.ok("a.example.com")
					sleep(time.Minute)
				}
				r.wantHandshakes(1)
				if n := ended.Load(); n != 0 {
					t.Errorf("%d contexts have ended", n)
				}
				r.tr.CloseIdleConnections()
				synctest.Wait()
				if n := ended.Load(); n != int32(len(r.Record().Conns())) && protos[0] == "h2" {
					t.Errorf("%d contexts have ended with their connections", n)
				}
			})
		})
	}
}

// TestD_AnHTTPSProxyIsAskedForHTTP1: a CONNECT is written to it in HTTP/1.1, also for
// requests that Proxy is asked about late.
func TestD_AnHTTPSProxyIsAskedForHTTP1(t *testing.T) {
	offered := make(chan []string, 10)
	r := newRig(t, map[string]lab.Server{
		"127.0.0.1": {Names: []string{"*.example.com"}},
		"127.0.0.2": {
			Names:  []string{"proxy.example.com"},
			Protos: []string{"h2", "http/1.1"},
			TLS: func(c *tls.Config) {
				c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
					offered <- slices.Clone(hello.SupportedProtos)
					return nil, nil
				}
			},
			Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { w.WriteHeader(http.StatusTeapot) }),
		},
	})
	r.Host("proxy.example.com", "127.0.0.2")
	u := r.request(t.Context(), http.MethodGet, "proxy.example.com", nil).URL
	r.tr.Base.Proxy = http.ProxyURL(u)
	for _, close := range []bool{false, true} {
		q := r.request(t.Context(), http.MethodGet, "a.example.com", nil)
		q.Close = close
		if a := r.do(q); a.err == nil || !strings.Contains(a.err.Error(), "teapot") {
			t.Errorf("got %+v", a)
		}
		if diff := cmp.Diff([]string{"http/1.1"}, <-offered); diff != "" {
			t.Errorf("Request.Close %v: offered (-want +got):\n%s", close, diff)
		}
	}
}

// A body that net/http sends is not kept: it is not sent again. This one is longer
// than declared, and read to its end for that.
func TestM6_NothingIsKeptForNetHTTP(t *testing.T) {
	const size = 64 << 20
	bubble(t, http1(nil), func(r *rig) {
		q := r.request(r.t.Context(), http.MethodPost, "a.example.com", io.LimitReader(zeros{}, size))
		q.ContentLength = 8
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r.do(q) // the answer and the complaint come at once
		synctest.Wait()
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > size/2 {
			t.Errorf("%d bytes were allocated", n)
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
