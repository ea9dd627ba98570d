package transport_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/internal/lab"
	"github.com/h2coalesce/h2coalesce/transport"
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

// TestP9_AHostThatChanges between HTTP/1.1 and HTTP/2 while it is in use costs one
// handshake each time, and each time the pool or Base has the connection that was
// made.
func TestP9_AHostThatChanges(t *testing.T) {
	for _, body := range []string{"none", "with GetBody", "without GetBody"} {
		t.Run(body, func(t *testing.T) {
			bubble(t, nil, func(r *rig) {
				var closes atomic.Int32
				phases := []string{"http/1.1", "h2", "http/1.1", "http/1.1", "h2", "h2", "http/1.1"}
				for i, proto := range phases {
					s := lab.Server{Names: []string{"*.example.com"}, Protos: []string{proto}, Handler: echo}
					if err := r.Serve("127.0.0.1", s); err != nil {
						t.Fatal(err)
					}
					r.Resolver().Reset()
					for range 3 {
						method, want := http.MethodGet, "GET "
						var content io.Reader
						switch body {
						case "with GetBody":
							method, content, want = http.MethodPost, strings.NewReader("some"), "POST some"
						case "without GetBody":
							method, want = http.MethodPost, "POST some"
							content = countedBody{io.MultiReader(strings.NewReader("so"), strings.NewReader("me")), &closes}
						}
						q := r.request(r.t.Context(), method, "a.example.com", content)
						if a := r.do(q); a.err != nil || a.status != http.StatusOK || a.body != want {
							t.Errorf("got %+v", a)
						}
					}
					r.wantHandshakes(i + 1)
					if n := r.Resolver().Lookups(); n > 2 { // one of them is the lab's own dialer's
						t.Errorf("phase %d: %d look-ups", i, n)
					}
					if conns := r.tr.Stats().Conns; conns != map[string]int{"h2": 1}[proto] {
						t.Errorf("phase %d: the pool has %d connections", i, conns)
					}
					if c := r.Record().Conns()[i]; c.Proto != proto || c.Requests != 3 {
						t.Errorf("phase %d: %+v", i, c)
					}
					r.Stop("127.0.0.1")
					synctest.Wait()
				}
				if n := closes.Load(); body == "without GetBody" && n != int32(3*len(phases)) {
					t.Errorf("%d bodies were closed, want each once", n)
				}
			})
		})
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

// TestP9_ManyRequestsToAHostThatHasTurned to HTTP/2 end up on one connection. With
// MaxConnsPerHost no further one is made.
func TestP9_ManyRequestsToAHostThatHasTurned(t *testing.T) {
	for _, limit := range []int{0, 1} {
		t.Run(fmt.Sprint("MaxConnsPerHost ", limit), func(t *testing.T) {
			bubble(t, http1(nil), func(r *rig) {
				r.tr.Base.MaxConnsPerHost = limit
				r.ok("a.example.com")
				r.Stop("127.0.0.1")
				synctest.Wait()
				delay := func(*lab.Request) time.Duration { return time.Second }
				if err := r.Serve("127.0.0.1", lab.Server{Names: []string{"*.example.com"}, HandshakeDelay: time.Second, Delay: delay}); err != nil {
					t.Fatal(err)
				}
				r.Record().Reset()
				var wg sync.WaitGroup
				began := time.Now()
				for range 20 {
					wg.Go(func() { r.ok("a.example.com") })
				}
				wg.Wait()
				if took := time.Since(began); took != 2*time.Second {
					t.Errorf("took %v, want one handshake's time and one answer's", took)
				}
				if s := r.tr.Stats(); s.Conns != 1 || s.Dials != 2 {
					t.Errorf("%+v", s)
				}
				if n := r.openConns(); n != 1 {
					t.Errorf("%d connections are open", n)
				}
				if n := r.Record().Handshakes(); limit == 1 && n != 1 {
					t.Errorf("%d handshakes, want 1", n)
				}
				r.wantKnown(r.t.Context(), "a.example.com", false)
			})
		})
	}
}

// TestP9_ServersThatDiffer behind one address: the first connection speaks
// HTTP/1.1, the others HTTP/2. Those who have waited for the first one in vain
// leave the pool the second one.
func TestP9_ServersThatDiffer(t *testing.T) {
	for _, body := range []string{"with GetBody", "without GetBody"} {
		t.Run(body, func(t *testing.T) {
			var hellos atomic.Int32
			servers := http1(func(s *lab.Server) {
				s.Handler = echo
				s.HandshakeDelay = time.Second
				s.Delay = func(*lab.Request) time.Duration { return time.Minute }
				s.TLS = func(c *tls.Config) {
					modern := c.Clone()
					modern.NextProtos = []string{"h2"}
					c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
						if hellos.Add(1) == 1 {
							return nil, nil
						}
						return modern, nil
					}
				}
			})
			bubble(t, servers, func(r *rig) {
				var closes atomic.Int32
				send := func() {
					var content io.Reader = strings.NewReader("some")
					if body == "without GetBody" {
						content = countedBody{content, &closes}
					}
					if a := r.do(r.request(r.t.Context(), http.MethodPost, "a.example.com", content)); a.err != nil || a.body != "POST some" {
						t.Errorf("got %+v", a)
					}
				}
				var wg sync.WaitGroup
				for range 2 {
					wg.Go(send)
				}
				wg.Wait()
				send()
				r.wantHandshakes(2)
				if s := r.tr.Stats(); s.Conns != 1 {
					t.Errorf("%+v", s)
				}
				synctest.Wait()
				if n := closes.Load(); body == "without GetBody" && n != 3 {
					t.Errorf("%d bodies were closed, want each once", n)
				}
			})
		})
	}
}

// TestP9_WhatBaseFindsOutForItself: a request that is Base's in any case tells
// what the host speaks, too.
func TestP9_WhatBaseFindsOutForItself(t *testing.T) {
	bubble(t, http1(nil), func(r *rig) {
		closing := func() {
			q := r.request(r.t.Context(), http.MethodGet, "a.example.com", nil)
			q.Close = true
			if a := r.do(q); a.err != nil {
				t.Error(a.err)
			}
		}
		closing()
		r.wantKnown(r.t.Context(), "a.example.com", true)
		r.Stop("127.0.0.1")
		synctest.Wait()
		if err := r.Serve("127.0.0.1", plain()["127.0.0.1"]); err != nil {
			t.Fatal(err)
		}
		closing()
		r.wantKnown(r.t.Context(), "a.example.com", false)
	})
}

// TestD_TraceOfAHostThatHasTurned is that of any first request.
func TestD_TraceOfAHostThatHasTurned(t *testing.T) {
	bubble(t, http1(nil), func(r *rig) {
		first, err := tracedFetch(r.t, r.tr, r.URL("a.example.com", "/"), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Stop("127.0.0.1")
		synctest.Wait()
		r.tr.CloseIdleConnections()
		if err := r.Serve("127.0.0.1", plain()["127.0.0.1"]); err != nil {
			t.Fatal(err)
		}
		second, err := tracedFetch(r.t, r.tr, r.URL("a.example.com", "/"), nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range first {
			first[i] = strings.Replace(first[i], "http/1.1", "h2", 1)
		}
		if diff := cmp.Diff(first, second); diff != "" {
			t.Errorf("events (-first +second):\n%s", diff)
		}
	})
}

// TestP9_AFailedRequestIsNoReasonToAskAgain: Base asks with each connection that
// it makes, and it has one.
func TestP9_AFailedRequestIsNoReasonToAskAgain(t *testing.T) {
	servers := http1(func(s *lab.Server) {
		s.Delay = func(q *lab.Request) time.Duration {
			return map[string]time.Duration{"/": time.Second, "/slow": time.Hour}[q.Path]
		}
	})
	bubble(t, servers, func(r *rig) {
		r.tr.Base.ResponseHeaderTimeout = time.Minute
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { r.ok("a.example.com") })
		}
		wg.Wait()
		q := r.request(r.t.Context(), http.MethodGet, "a.example.com", nil)
		q.URL.Path = "/slow"
		if a := r.do(q); a.err == nil {
			t.Fatalf("got %+v", a)
		}
		r.ok("a.example.com") // on the other one
		r.wantHandshakes(2)
		if s := r.tr.Stats(); s.Dials != 1 {
			t.Errorf("the pool has dialed %d times", s.Dials)
		}
	})
}

// TestP9_HowLongItIsRemembered: 10 minutes from when the host was last asked,
// which it is whenever Base connects.
func TestP9_HowLongItIsRemembered(t *testing.T) {
	t.Run("a connection is kept", func(t *testing.T) {
		bubble(t, http1(nil), func(r *rig) {
			r.ok("a.example.com")
			for _, at := range []time.Duration{time.Minute, 10*time.Minute - 1} {
				time.Sleep(at - time.Since(began(r)))
				r.wantKnown(r.t.Context(), "a.example.com", true)
				r.ok("a.example.com")
			}
			r.wantHandshakes(1)
			time.Sleep(time.Nanosecond)
			r.wantKnown(r.t.Context(), "a.example.com", false)
			r.ok("a.example.com")
			r.wantKnown(r.t.Context(), "a.example.com", true)
			n := r.openConns()
			r.wantHandshakes(2)
			if n != 1 {
				t.Errorf("%d connections are open: the one made to ask is of no use", n)
			}
		})
	})
	t.Run("none is kept", func(t *testing.T) {
		bubble(t, http1(func(s *lab.Server) { s.GoAwayAfter = 1 }), func(r *rig) {
			for i := range 5 {
				r.ok("a.example.com")
				r.wantHandshakes(i + 1)
				time.Sleep(9 * time.Minute)
				r.wantKnown(r.t.Context(), "a.example.com", true)
			}
			if s := r.tr.Stats(); s.Dials != 1 {
				t.Errorf("the pool has dialed %d times", s.Dials)
			}
		})
	})
}

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

// began returns when the rig's first connection was accepted, at the earliest.
func began(*rig) time.Time { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) }

// TestP9_HowManyAreRemembered: 1024 hosts, those used last. The servers are behind a
// DialTLSContext that hides TLS, and need none.
func TestP9_HowManyAreRemembered(t *testing.T) {
	const bound = 1024
	synctest.Test(t, func(t *testing.T) {
		var wg sync.WaitGroup
		tr := &transport.Transport{Base: &http.Transport{
			DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
				client, server := net.Pipe()
				wg.Go(func() {
					defer server.Close()
					in := bufio.NewReader(server)
					for {
						if _, err := http.ReadRequest(in); err != nil {
							return
						}
						io.WriteString(server, "HTTP/1.1 204 No Content\r\n\r\n")
					}
				})
				return client, nil
			},
		}}
		url := func(i int) string { return fmt.Sprintf("https://h%d.example.com/", i) }
		get := func(i int) {
			res, err := (&http.Client{Transport: tr}).Get(url(i))
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
		}
		known := func(i int) bool {
			d, err := tr.Explain(t.Context(), url(i))
			if err != nil {
				t.Fatal(err)
			}
			return d.Reason == coalesce.ReasonDisabled
		}
		for i := range bound {
			get(i)
		}
		get(0)
		get(bound)
		if !known(0) || known(1) || !known(2) || !known(bound) {
			t.Errorf("known: %v, %v, %v, %v", known(0), known(1), known(2), known(bound))
		}
		if s := tr.Stats(); s.Dials != bound+1 || s.Conns != 0 {
			t.Errorf("%+v", s)
		}
		tr.Close()
		wg.Wait()
	})
}

// TestP9_PartitionsDoNotLearnFromEachOther, though one may have asked.
func TestP9_PartitionsDoNotLearnFromEachOther(t *testing.T) {
	bubble(t, http1(nil), func(r *rig) {
		none, x, y := r.t.Context(), transport.WithPartition(r.t.Context(), "x"), transport.WithPartition(r.t.Context(), "y")
		for i, ctx := range []context.Context{none, x, y} {
			r.wantKnown(ctx, "a.example.com", false)
			r.okContext(ctx, "a.example.com")
			r.wantKnown(ctx, "a.example.com", true)
			r.wantHandshakes(i + 1)
		}
		// What one finds out about a change is its own, too.
		r.Stop("127.0.0.1")
		synctest.Wait()
		if err := r.Serve("127.0.0.1", plain()["127.0.0.1"]); err != nil {
			t.Fatal(err)
		}
		r.okContext(x, "a.example.com")
		r.wantKnown(none, "a.example.com", true)
		r.wantKnown(x, "a.example.com", false)
		r.wantKnown(y, "a.example.com", true)
		for _, ctx := range []context.Context{none, y, none, x, y} {
			r.okContext(ctx, "a.example.com")
		}
		r.wantHandshakes(6)
		if s := r.tr.Stats(); s.Conns != 3 {
			t.Errorf("%+v, want an HTTP/2 connection for each", s)
		}
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

// TestP9_ATurnThatIsNoticedInVain: while a request waits for Base's dial, which will
// tell that the host has turned, another connection gets free for it. Its body is
// closed in the end, and the connection that nobody needs.
func TestP9_ATurnThatIsNoticedInVain(t *testing.T) {
	var turned atomic.Bool
	servers := http1(func(s *lab.Server) {
		s.HandshakeDelay = 2 * time.Second
		s.Delay = func(q *lab.Request) time.Duration { return time.Second }
		s.TLS = func(c *tls.Config) {
			now := c.Clone()
			now.NextProtos = []string{"h2"}
			c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
				if turned.Load() {
					return now, nil
				}
				return nil, nil
			}
		}
	})
	bubble(t, servers, func(r *rig) {
		r.ok("a.example.com")
		turned.Store(true)
		var wg sync.WaitGroup
		wg.Go(func() { r.ok("a.example.com") }) // until 1 s from now
		synctest.Wait()
		var closes atomic.Int32
		slow := iotest.OneByteReader(slowReader{strings.NewReader("some"), time.Second})
		q := r.request(r.t.Context(), http.MethodPost, "a.example.com", countedBody{slow, &closes})
		if a := r.do(q); a.err != nil || a.conn != "1" {
			t.Errorf("got %+v", a)
		}
		wg.Wait()
		if n := r.openConns(); n != 1 || closes.Load() != 1 {
			t.Errorf("%d connections are open, the body was closed %d times", n, closes.Load())
		}
		r.wantHandshakes(2)
		r.wantKnown(r.t.Context(), "a.example.com", false)
	})
}

// slowReader takes its time with each Read.
type slowReader struct {
	io.Reader
	time.Duration
}

func (r slowReader) Read(p []byte) (int, error) {
	time.Sleep(r.Duration)
	return r.Reader.Read(p)
}

// TestP9_AGetBodyThatFails loses the request, not the connection.
func TestP9_AGetBodyThatFails(t *testing.T) {
	lost := errors.New("lost")
	bubble(t, http1(nil), func(r *rig) {
		r.ok("a.example.com")
		r.Stop("127.0.0.1")
		synctest.Wait()
		if err := r.Serve("127.0.0.1", plain()["127.0.0.1"]); err != nil {
			t.Fatal(err)
		}
		q := r.request(r.t.Context(), http.MethodPost, "a.example.com", strings.NewReader("some"))
		q.GetBody = func() (io.ReadCloser, error) { return nil, lost }
		if a := r.do(q); !errors.Is(a.err, lost) {
			t.Errorf("got %+v", a)
		}
		if n := r.openConns(); n != 0 {
			t.Errorf("%d connections are open", n)
		}
		r.ok("a.example.com")
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
