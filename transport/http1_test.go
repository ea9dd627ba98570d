package transport_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/internal/lab"
)

// http1 is a server that speaks HTTP/1.1 only, changed by edit.
func http1(edit func(*lab.Server)) map[string]lab.Server {
	s := lab.Server{Names: []string{"*.example.com"}, Protos: []string{"http/1.1"}}
	if edit != nil {
		edit(&s)
	}
	return map[string]lab.Server{"127.0.0.1": s}
}

// openConns returns how many connections the servers have open.
func (r *rig) openConns() int {
	synctest.Wait()
	return len(r.Conns())
}

// wantKnown checks that a host's requests are Base's at once, or that they are not.
func (r *rig) wantKnown(ctx context.Context, host string, want bool) {
	r.t.Helper()
	d, err := r.tr.Explain(ctx, r.URL(host, "/"))
	if err != nil {
		r.t.Fatal(err)
	}
	if known := d.Reason == coalesce.ReasonDisabled; known != want {
		r.t.Errorf("%s: known to speak HTTP/1.1: %v (reason %q)", host, known, d.Reason)
	}
}

// countedBody is a body that can be had only once.
type countedBody struct {
	io.Reader
	closes *atomic.Int32
}

func (c countedBody) Close() error {
	c.closes.Add(1)
	return nil
}

// TestP9_ManyFirstRequests sends 50 at once to a host that speaks HTTP/1.1, whose
// handshakes and answers take their time.
func TestP9_ManyFirstRequests(t *testing.T) {
	const n = 50
	servers := http1(func(s *lab.Server) {
		s.HandshakeDelay = 100 * time.Millisecond
		s.Delay = func(*lab.Request) time.Duration { return time.Second }
	})
	for _, test := range []struct {
		name string
		rt   func(*rig) http.RoundTripper
		took time.Duration
	}{
		{"net/http", func(r *rig) http.RoundTripper {
			theirs := r.Lab.Transport()
			r.t.Cleanup(theirs.CloseIdleConnections)
			return theirs
		}, 1100 * time.Millisecond},
		// The others wait for the first one's handshake to tell that they need one
		// each.
		{"ours", func(r *rig) http.RoundTripper { return r.tr }, 1200 * time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, servers, func(r *rig) {
				rt := test.rt(r)
				began := time.Now()
				var wg sync.WaitGroup
				for range n {
					wg.Go(func() {
						res, err := rt.RoundTrip(r.request(r.t.Context(), http.MethodGet, "a.example.com", nil))
						if err != nil {
							t.Error(err)
							return
						}
						defer res.Body.Close()
						if b, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusOK || !bytes.HasPrefix(b, []byte("host=a.example.com ")) {
							t.Errorf("got %d, %q, %v", res.StatusCode, b, err)
						}
					})
				}
				wg.Wait()
				if took := time.Since(began); took != test.took {
					t.Errorf("took %v, want %v", took, test.took)
				}
				r.wantHandshakes(n)
				for _, c := range r.Record().Conns() {
					if c.Requests != 1 {
						t.Errorf("connection %d carried %d requests, want 1", c.ID, c.Requests)
					}
				}
				if c, ok := rt.(*http.Transport); ok {
					c.CloseIdleConnections()
				}
			})
		})
	}
}

// TestP9_MaxConnsPerHostHolds: the connection that was made to ask for HTTP/2
// counts, since whichever request dials first has it.
func TestP9_MaxConnsPerHostHolds(t *testing.T) {
	for _, limit := range []int{1, 3} {
		for range 40 { // who dials first is a draw
			var open, most atomic.Int32
			servers := http1(func(s *lab.Server) {
				s.HandshakeDelay = time.Second // all wait for the first one
				s.Delay = func(*lab.Request) time.Duration { return time.Second }
				s.OnConn = func(c *lab.Conn) {
					if n := open.Add(1); n > most.Load() {
						most.Store(n)
					}
					context.AfterFunc(c.Context(), func() { open.Add(-1) })
				}
			})
			bubble(t, servers, func(r *rig) {
				r.tr.Base.MaxConnsPerHost = limit
				r.tr.Base.MaxIdleConnsPerHost = limit
				var wg sync.WaitGroup
				for range 12 {
					wg.Go(func() { r.ok("a.example.com") })
				}
				wg.Wait()
				r.wantHandshakes(limit)
			})
			if n := int(most.Load()); n > limit {
				t.Fatalf("%d connections at once, with MaxConnsPerHost %d", n, limit)
			}
		}
	}
}

// TestD_TraceOfRequestsThatWaitedInVain: each tells once that it wants a
// connection, and of the dials that are made for it.
func TestD_TraceOfRequestsThatWaitedInVain(t *testing.T) {
	servers := http1(func(s *lab.Server) {
		s.HandshakeDelay = 100 * time.Millisecond
		s.Delay = func(*lab.Request) time.Duration { return time.Second }
	})
	bubble(t, servers, func(r *rig) {
		var wg sync.WaitGroup
		var mu sync.Mutex
		total := make(map[string]int)
		for range 10 {
			wg.Go(func() {
				ctx, list := dialEvents(r.t.Context())
				r.okContext(ctx, "a.example.com")
				mu.Lock()
				defer mu.Unlock()
				if all := list(); !strings.HasPrefix(all[0], "GetConn ") || !strings.HasPrefix(all[len(all)-1], "GotConn ") {
					t.Errorf("events %q", all)
				}
				for _, e := range list() {
					total[strings.Fields(e)[0]]++
				}
			})
		}
		wg.Wait()
		delete(total, "DNSStart")
		delete(total, "DNSDone")
		want := map[string]int{"GetConn": 10, "TLSHandshakeStart": 10, "TLSHandshakeDone": 10, "GotConn": 10}
		if diff := cmp.Diff(want, total); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

// TestP9_AmongHTTP2HostsAtOneAddress has hosts that speak HTTP/2 wait for the
// handshake of one that does not: once, and without an effect on what they do.
func TestP9_AmongHTTP2HostsAtOneAddress(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		old, err := r.CA().Issue([]string{"old1.example.com", "old2.example.com"})
		if err != nil {
			t.Fatal(err)
		}
		s := lab.Server{
			Names:          []string{"a.example.com", "b.example.com", "c.example.com"},
			HandshakeDelay: 100 * time.Millisecond,
		}
		s.TLS = func(c *tls.Config) {
			c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				if strings.HasPrefix(hello.ServerName, "old") {
					return &tls.Config{Certificates: []tls.Certificate{old}, NextProtos: []string{"http/1.1"}}, nil
				}
				return nil, nil
			}
		}
		if err := r.Serve("127.0.0.1", s); err != nil {
			t.Fatal(err)
		}
		hosts := []string{"old1", "a", "b", "c", "old2"}
		began := time.Now()
		var wg sync.WaitGroup
		for _, h := range hosts {
			host := h + ".example.com"
			r.Host(host, "127.0.0.1")
			wg.Go(func() {
				res, err := r.tr.RoundTrip(r.request(r.t.Context(), http.MethodGet, host, nil))
				if err != nil {
					t.Error(err)
					return
				}
				defer res.Body.Close()
				io.Copy(io.Discard, res.Body)
				old := strings.HasPrefix(host, "old")
				if (res.ProtoMajor == 1) != old {
					t.Errorf("%s: HTTP/%d", host, res.ProtoMajor)
				}
				want := 200 * time.Millisecond
				if host == hosts[0]+".example.com" {
					want /= 2
				}
				if took := time.Since(began); took != want {
					t.Errorf("%s: served after %v, want %v", host, took, want)
				}
			})
			synctest.Wait() // so the first has begun to dial
		}
		wg.Wait()
		for _, h := range hosts {
			r.wantKnown(r.t.Context(), h+".example.com", strings.HasPrefix(h, "old"))
		}
		// And so it goes on.
		synctest.Wait() // one of the dials may have been overtaken by another
		r.Record().Reset()
		for _, h := range hosts {
			r.ok(h + ".example.com")
		}
		r.wantHandshakes(0)
	})
}

// TestP9_WithoutALPN: a server that knows nothing of it speaks HTTP/1.1.
func TestP9_WithoutALPN(t *testing.T) {
	bubble(t, http1(func(s *lab.Server) { s.Protos = []string{} }), func(r *rig) {
		for range 3 {
			res, err := r.tr.RoundTrip(r.request(r.t.Context(), http.MethodGet, "a.example.com", nil))
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if res.ProtoMajor != 1 || res.TLS == nil || res.TLS.NegotiatedProtocol != "" {
				t.Errorf("%s, TLS %+v", res.Proto, res.TLS)
			}
		}
		r.wantHandshakes(1)
		r.wantKnown(r.t.Context(), "a.example.com", true)
	})
}

// TestP9_Bodies goes on the connection that is handed over, and has its body sent
// and closed once.
func TestP9_Bodies(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 10_000)
	for _, test := range []struct {
		name   string
		body   func(closes *atomic.Int32) io.Reader
		length int64
		header http.Header
		want   string
		counts bool
	}{
		{"none", func(*atomic.Int32) io.Reader { return nil }, 0, nil, "POST ", false},
		{"NoBody", func(*atomic.Int32) io.Reader { return http.NoBody }, 0, nil, "POST ", false},
		{"with GetBody", func(*atomic.Int32) io.Reader { return strings.NewReader(large) }, int64(len(large)), nil, "POST " + large, false},
		{"of known length", func(n *atomic.Int32) io.Reader { return countedBody{strings.NewReader(large), n} }, int64(len(large)), nil, "POST " + large, true},
		{"of unknown length", func(n *atomic.Int32) io.Reader { return countedBody{strings.NewReader(large), n} }, -1, nil, "POST " + large, true},
		{"after 100 (Continue)", func(n *atomic.Int32) io.Reader { return countedBody{strings.NewReader(large), n} }, -1, http.Header{"Expect": {"100-continue"}}, "POST " + large, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, http1(func(s *lab.Server) { s.Handler = echo }), func(r *rig) {
				r.tr.Base.ExpectContinueTimeout = time.Minute
				var closes atomic.Int32
				for i := range 2 {
					q := r.request(r.t.Context(), http.MethodPost, "a.example.com", test.body(&closes))
					q.ContentLength = test.length
					if test.header != nil {
						q.Header = test.header.Clone()
					}
					if a := r.do(q); a.err != nil || a.body != test.want {
						t.Errorf("got %d bytes, %v", len(a.body), a.err)
					}
					synctest.Wait()
					if n := closes.Load(); test.counts && int(n) != i+1 {
						t.Errorf("the body was closed %d times", int(n)-i)
					}
				}
				r.wantHandshakes(1)
			})
		})
	}
}
