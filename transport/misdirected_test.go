package transport_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/h2coalesce/h2coalesce/internal/lab"
	"github.com/h2coalesce/h2coalesce/transport"
)

func TestM1_AnyMethodIsSentAgainOnce(t *testing.T) {
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"} {
		t.Run(method, func(t *testing.T) {
			bubble(t, shy(echo), func(r *rig) {
				r.ok("a.example.com")
				var body io.Reader
				want := method + " "
				if strings.HasPrefix(method, "P") {
					body, want = strings.NewReader("payload"), want+"payload"
				}
				if method == "HEAD" {
					want = ""
				}
				a := r.do(r.request(r.t.Context(), method, "b.example.com", body))
				if a.status != 200 || a.body != want || a.err != nil {
					t.Errorf("got %+v, want 200 %q", a, want)
				}
				if diff := cmp.Diff([]string{"a@1 200", "b@1 421", "b@2 200"}, r.path()); diff != "" {
					t.Errorf("path (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestM1_A421FromAFreshConnectionIsTheAnswer(t *testing.T) {
	servers := map[string]lab.Server{"127.0.0.1": {
		Names:       []string{"*.example.com"},
		Misdirected: func(*lab.Request) bool { return true },
	}}
	bubble(t, servers, func(r *rig) {
		a := r.get("a.example.com")
		if a.status != 421 || !strings.Contains(a.body, "misdirected") {
			t.Errorf("got %+v, want the 421 with its body", a)
		}
		r.wantHandshakes(1)
	})
}

// TestOutcomes has one row for each thing that may be done about a 421.
func TestOutcomes(t *testing.T) {
	always := shy(nil)
	s := always["127.0.0.1"]
	s.Misdirected = func(r *lab.Request) bool { return r.Host() == "b.example.com" }
	always["127.0.0.1"] = s
	outcomes := func(r *rig, host string, body io.Reader) (all []transport.Outcome) {
		ctx := transport.WithTrace(r.t.Context(), &transport.Trace{Misdirected: func(m transport.Misdirected) {
			if m.Status != 421 || m.Host != host || m.Retried != (m.Outcome == transport.OutcomeRetried) || !m.RemoteAddr.IsValid() {
				t.Errorf("told %+v", m)
			}
			all = append(all, m.Outcome)
		}})
		r.do(r.request(ctx, http.MethodPost, host, body))
		return all
	}
	want := func(t *testing.T, got []transport.Outcome, want ...transport.Outcome) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("outcomes (-want +got):\n%s", diff)
		}
	}
	t.Run("retried", func(t *testing.T) {
		bubble(t, shy(nil), func(r *rig) {
			r.ok("a.example.com")
			want(t, outcomes(r, "b.example.com", nil), transport.OutcomeRetried)
			want(t, outcomes(r, "b.example.com", nil))
		})
	})
	t.Run("fresh, then known", func(t *testing.T) {
		bubble(t, always, func(r *rig) {
			want(t, outcomes(r, "b.example.com", nil), transport.OutcomeFresh)
			want(t, outcomes(r, "b.example.com", nil), transport.OutcomeKnown)
		})
	})
	t.Run("retried, again, then known", func(t *testing.T) {
		bubble(t, always, func(r *rig) {
			r.ok("a.example.com")
			want(t, outcomes(r, "b.example.com", nil), transport.OutcomeRetried, transport.OutcomeAgain)
			want(t, outcomes(r, "b.example.com", nil), transport.OutcomeKnown)
		})
	})
	t.Run("body is gone", func(t *testing.T) {
		// b is answered on a's connection at first, which is proof; later not.
		turned := false
		servers := shy(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			if _, q := lab.FromRequest(r); turned && misdirectsB(q) {
				w.WriteHeader(http.StatusMisdirectedRequest)
			}
		}))
		s := servers["127.0.0.1"]
		s.Misdirected = nil
		servers["127.0.0.1"] = s
		bubble(t, servers, func(r *rig) {
			r.ok("a.example.com")
			r.ok("b.example.com")
			turned = true
			stream := func() io.Reader { return io.MultiReader(strings.NewReader("stream")) }
			want(t, outcomes(r, "b.example.com", stream()), transport.OutcomeBody)
			want(t, outcomes(r, "b.example.com", stream()))
		})
	})
}

func TestM1_TheRetryPrefersAnOpenConnectionOfTheHost(t *testing.T) {
	// b's first own connection turns against it after a while; its second one
	// is open by then.
	var turned bool
	var mu sync.Mutex
	servers := map[string]lab.Server{"127.0.0.1": {
		Names: []string{"*.example.com"},
		Misdirected: func(r *lab.Request) bool {
			mu.Lock()
			defer mu.Unlock()
			return turned && r.Conn == 1
		},
		MaxStreams: 1,
		Delay:      func(*lab.Request) time.Duration { return time.Second },
	}}
	bubble(t, servers, func(r *rig) {
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { r.ok("b.example.com") })
		}
		wg.Wait()
		r.wantHandshakes(2)
		mu.Lock()
		turned = true
		mu.Unlock()
		if a := r.get("b.example.com"); a.status != 200 || a.conn != "2" {
			t.Errorf("got %+v, want 200 on connection 2", a)
		}
		r.wantHandshakes(2)
	})
}

func TestM2_OnlyTheMisdirectedHostLeaves(t *testing.T) {
	bubble(t, shy(nil), func(r *rig) {
		for _, h := range []string{"a", "c", "b", "c", "a", "b"} {
			r.ok(h + ".example.com")
		}
		want := []string{"a@1 200", "c@1 200", "b@1 421", "b@2 200", "c@1 200", "a@1 200", "b@2 200"}
		if diff := cmp.Diff(want, r.path()); diff != "" {
			t.Errorf("path (-want +got):\n%s", diff)
		}
	})
}

func TestM3_A421OutlivesItsConnections(t *testing.T) {
	count421 := func(r *rig) int {
		return r.Record().Count(func(q lab.RequestRecord) bool { return q.Status == 421 })
	}
	again := func(r *rig) { // with all connections dialed anew, b after a
		r.tr.CloseIdleConnections()
		r.ok("a.example.com")
		r.ok("b.example.com")
	}
	for _, test := range []struct {
		ttl   time.Duration
		pause time.Duration
		want  int
	}{
		{0, 10*time.Minute - time.Second, 1},
		{0, 10*time.Minute + time.Second, 2},
		{time.Hour, time.Hour - time.Second, 1},
		{time.Hour, time.Hour + time.Second, 2},
		{-1, 0, 2},
	} {
		t.Run(fmt.Sprint(test.ttl, test.pause), func(t *testing.T) {
			bubble(t, shy(nil), func(r *rig) {
				r.tr.MisdirectedTTL = test.ttl
				again(r)
				if n := count421(r); n != 1 {
					t.Fatalf("%d requests were answered 421 at first", n)
				}
				sleep(test.pause)
				again(r)
				if n := count421(r); n != test.want {
					t.Errorf("%d requests were answered 421 in all, want %d", n, test.want)
				}
			})
		})
	}
}

func TestM4_Concurrent421sShareOneDial(t *testing.T) {
	bubble(t, shy(nil), func(r *rig) {
		r.ok("a.example.com")
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { r.ok("b.example.com") })
		}
		wg.Wait()
		r.wantHandshakes(2)
	})
}

func TestM5_AServerThatAlwaysSays421CostsOneDial(t *testing.T) {
	servers := shy(nil)
	s := servers["127.0.0.1"]
	s.Misdirected = func(r *lab.Request) bool { return r.Host() == "b.example.com" }
	servers["127.0.0.1"] = s
	for _, ttl := range []time.Duration{0, -1} {
		t.Run(fmt.Sprint("MisdirectedTTL ", ttl), func(t *testing.T) {
			bubble(t, servers, func(r *rig) {
				r.tr.MisdirectedTTL = ttl
				r.ok("a.example.com")
				for range 100 {
					if a := r.get("b.example.com"); a.status != 421 || a.body == "" || a.err != nil {
						t.Fatalf("got %+v, want a 421 with its body", a)
					}
				}
				r.wantHandshakes(2)
				if n := len(r.Record().Requests()); n != 1+1+100 {
					t.Errorf("%d requests arrived, want a's, b's on a's connection, and each of b's once", n)
				}
			})
		})
	}
}

func TestM7_AnEndless421IsNotRead(t *testing.T) {
	endless := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, q := lab.FromRequest(r)
		if !misdirectsB(q) {
			return
		}
		w.WriteHeader(http.StatusMisdirectedRequest)
		for {
			if _, err := w.Write(make([]byte, 1<<10)); err != nil {
				return
			}
		}
	})
	servers := map[string]lab.Server{"127.0.0.1": {Names: []string{"*.example.com"}, Handler: endless, MaxStreams: 1}}
	bubble(t, servers, func(r *rig) {
		r.ok("a.example.com")
		r.ok("b.example.com")
		r.ok("c.example.com") // there is a stream for it
		if diff := cmp.Diff([]string{"a@1 200", "b@1 421", "b@2 200", "c@1 200"}, r.path()); diff != "" {
			t.Errorf("path (-want +got):\n%s", diff)
		}
	})
}

func TestM8_TheErrorTellsThe421AndTheCause(t *testing.T) {
	// later has the second dial and those after it made by dial.
	later := func(r *rig, dial func(context.Context) (net.Conn, error)) {
		first := true
		r.tr.Base.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if first {
				first = false
				return r.DialContext(ctx, network, addr)
			}
			return dial(ctx)
		}
	}
	t.Run("dial failed", func(t *testing.T) {
		bubble(t, shy(nil), func(r *rig) {
			later(r, func(context.Context) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
			})
			r.ok("a.example.com")
			a := r.get("b.example.com")
			var misdirected *transport.MisdirectedError
			if !errors.As(a.err, &misdirected) || !errors.Is(a.err, syscall.ECONNREFUSED) || misdirected.Timeout() {
				t.Fatalf("got %v, want both the 421 and the cause, which is no timeout", a.err)
			}
			for _, part := range []string{"b.example.com", "421", "a.example.com", "127.0.0.1:443", "refused"} {
				if !strings.Contains(a.err.Error(), part) {
					t.Errorf("%q does not mention %q", a.err, part)
				}
			}
			// The next request is not misdirected again.
			if a := r.get("b.example.com"); !errors.Is(a.err, syscall.ECONNREFUSED) || errors.As(a.err, &misdirected) {
				t.Errorf("the next request: %v, want the dial's error alone", a.err)
			}
		})
	})
	t.Run("context over", func(t *testing.T) {
		bubble(t, shy(nil), func(r *rig) {
			later(r, func(ctx context.Context) (net.Conn, error) {
				<-ctx.Done() // with Transport.Close: the dial outlives the request
				return nil, ctx.Err()
			})
			r.ok("a.example.com")
			ctx, cancel := context.WithTimeout(r.t.Context(), time.Second)
			defer cancel()
			start := time.Now()
			a := r.do(r.request(ctx, http.MethodGet, "b.example.com", nil))
			var misdirected *transport.MisdirectedError
			if !errors.As(a.err, &misdirected) || !errors.Is(a.err, context.DeadlineExceeded) || !misdirected.Timeout() {
				t.Errorf("got %v, want both the 421 and the cause, as a timeout", a.err)
			}
			if d := time.Since(start); d != time.Second {
				t.Errorf("it took %v", d)
			}
		})
	})
}

func TestM9_AcrossTheRetry(t *testing.T) {
	t.Run("trailers", func(t *testing.T) {
		bubble(t, shy(echo), func(r *rig) {
			r.ok("a.example.com")
			req := r.request(r.t.Context(), http.MethodPost, "b.example.com", strings.NewReader("body"))
			req.ContentLength = -1 // else there are no trailers
			req.Trailer = http.Header{"X-Sent": {"!"}}
			a := r.do(req)
			if a.body != "POST body" || a.trailer.Get("X-Sum") != "4!" {
				t.Errorf("got %+v", a)
			}
			if n := r.tr.Stats().Retried; n != 1 {
				t.Errorf("sent again %d times", n)
			}
		})
	})
	t.Run("Expect", func(t *testing.T) {
		bubble(t, shy(echo), func(r *rig) {
			r.tr.Base.ExpectContinueTimeout = time.Minute
			r.ok("a.example.com")
			var reads int
			req := r.request(r.t.Context(), http.MethodPost, "b.example.com", nil)
			req.Body = io.NopCloser(io.TeeReader(strings.NewReader("body"), writerFunc(func(p []byte) { reads += len(p) })))
			req.ContentLength = 4
			req.Header.Set("Expect", "100-continue")
			if a := r.do(req); a.body != "POST body" || reads != 4 {
				t.Errorf("got %+v, %d bytes read", a, reads)
			}
			if n := r.tr.Stats().Retried; n != 1 {
				t.Errorf("sent again %d times", n)
			}
		})
	})
	t.Run("cancellation", func(t *testing.T) {
		servers := shy(nil)
		s := servers["127.0.0.1"]
		s.Delay = func(q *lab.Request) time.Duration {
			if q.SNI == "b.example.com" {
				return time.Hour
			}
			return 0
		}
		servers["127.0.0.1"] = s
		bubble(t, servers, func(r *rig) {
			r.ok("a.example.com")
			ctx, cancel := context.WithCancel(r.t.Context())
			time.AfterFunc(time.Second, cancel)
			start := time.Now()
			a := r.do(r.request(ctx, http.MethodGet, "b.example.com", nil))
			if !errors.Is(a.err, context.Canceled) || time.Since(start) != time.Second {
				t.Errorf("got %v after %v", a.err, time.Since(start))
			}
		})
	})
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

func TestIsMisdirected(t *testing.T) {
	gateway := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, q := lab.FromRequest(r)
		if misdirectsB(q) || r.URL.Path == "/gone" {
			w.WriteHeader(http.StatusNotFound)
		}
		w.Header()
	})
	bubble(t, map[string]lab.Server{"127.0.0.1": {Names: []string{"*.example.com"}, Handler: gateway}}, func(r *rig) {
		r.tr.IsMisdirected = func(res *http.Response) bool { return res.StatusCode == http.StatusNotFound }
		r.ok("a.example.com")
		r.ok("b.example.com")
		want := []string{"a@1 200", "b@1 404", "b@2 200"}
		if diff := cmp.Diff(want, r.path()); diff != "" {
			t.Errorf("path (-want +got):\n%s", diff)
		}
		// On an own connection a 404 is a 404.
		req := r.request(r.t.Context(), http.MethodGet, "b.example.com", nil)
		req.URL.Path = "/gone"
		if a := r.do(req); a.status != 404 {
			t.Errorf("got %+v, want 404", a)
		}
		r.wantHandshakes(2)
	})
}
