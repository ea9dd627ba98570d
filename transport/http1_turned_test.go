package transport_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

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
