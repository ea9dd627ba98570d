package transport_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/h2coalesce/h2coalesce/internal/lab"
	"github.com/h2coalesce/h2coalesce/transport"
)

// http1For has a server speak HTTP/1.1 with those who ask for host.
func http1For(host string) func(*tls.Config) {
	return func(c *tls.Config) {
		old := c.Clone()
		old.NextProtos = []string{"http/1.1"}
		c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if hello.ServerName == host {
				return old, nil
			}
			return nil, nil
		}
	}
}

// b's own server speaks HTTP/1.1, so the retry of a 421 goes to net/http. If it
// fails, the error tells both.
func TestM8_TheRetryIsHTTP1(t *testing.T) {
	servers := shy(nil)
	s := servers["127.0.0.1"]
	s.TLS = http1For("b.example.com")
	s.Reset = func(q *lab.Request) (http2.ErrCode, bool) {
		return http2.ErrCodeInternal, q.SNI == "b.example.com"
	}
	servers["127.0.0.1"] = s
	errNoBody := errors.New("there is no body")
	for _, test := range []struct {
		name    string
		getBody func() (io.ReadCloser, error)
		cause   error // nil: any
	}{
		{"the request fails", func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader([]byte("body"))), nil }, nil},
		{"GetBody fails", func() (io.ReadCloser, error) { return nil, errNoBody }, errNoBody},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, servers, func(r *rig) {
				r.ok("a.example.com")
				q := r.request(r.t.Context(), http.MethodPost, "b.example.com", bytes.NewReader([]byte("body")))
				q.GetBody = test.getBody
				a := r.do(q)
				m, ok := errors.AsType[*transport.MisdirectedError](a.err)
				if !ok || m.Misdirected.ConnHost != "a.example.com" || test.cause != nil && m.Err != test.cause {
					t.Errorf("got %v, want the 421 and the cause", a.err)
				}
				if n := r.openConns(); n != 1 {
					t.Errorf("%d connections are open, want a's", n)
				}
			})
		})
	}
}

// turning is a host whose first connection speaks HTTP/2 and answers 421 to all
// but the first request, whose second one speaks HTTP/1.1, and whose third one
// HTTP/2 again. Of two requests that come upon the first one, both wait for the
// second one, and the one that does not get it has the third.
func turning(edit func(*lab.Server)) map[string]lab.Server {
	var handshakes atomic.Int32
	s := lab.Server{
		Names: []string{"a.example.com"},
		TLS: func(c *tls.Config) {
			old := c.Clone()
			old.NextProtos = []string{"http/1.1"}
			c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
				if handshakes.Add(1) == 2 {
					time.Sleep(50 * time.Millisecond)
					return old, nil
				}
				return nil, nil
			}
		},
		Misdirected: func(q *lab.Request) bool { return q.Conn == 1 && !q.First },
		Delay:       func(*lab.Request) time.Duration { return 100 * time.Millisecond },
	}
	edit(&s)
	return map[string]lab.Server{"127.0.0.1": s}
}

// two makes two requests at once.
func (r *rig) two(ctx context.Context, host string) (answers [2]answer) {
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { answers[i] = r.do(r.request(ctx, http.MethodGet, host, nil)) })
	}
	wg.Wait()
	return answers
}

// The retry fails on the connection that the host has turned with: the error
// tells of the 421 once.
func TestM8_TheRetryTurns(t *testing.T) {
	servers := turning(func(s *lab.Server) {
		s.Reset = func(q *lab.Request) (http2.ErrCode, bool) { return http2.ErrCodeInternal, q.Conn == 3 }
	})
	bubble(t, servers, func(r *rig) {
		r.ok("a.example.com")
		failed := 0
		for _, a := range r.two(r.t.Context(), "a.example.com") {
			if a.err == nil {
				continue
			}
			failed++
			m, ok := errors.AsType[*transport.MisdirectedError](a.err)
			if !ok || !errors.As(m.Err, new(http2.StreamError)) || errors.As(m.Err, new(*transport.MisdirectedError)) {
				t.Errorf("got %v, want the 421 and the cause, each once", a.err)
			}
		}
		if failed != 1 {
			t.Errorf("%d requests failed, want the one on connection 3", failed)
		}
	})
}

// The retry is answered there: the connection that said 421 is left alone.
func TestM3_TheRetryTurns(t *testing.T) {
	bubble(t, turning(func(*lab.Server) {}), func(r *rig) {
		r.ok("a.example.com")
		for _, a := range r.two(r.t.Context(), "a.example.com") {
			if a.status != http.StatusOK {
				t.Errorf("got %+v", a)
			}
		}
		r.Record().Reset()
		for range 3 {
			r.ok("a.example.com")
		}
		if diff := cmp.Diff([]string{"a@3 200", "a@3 200", "a@3 200"}, r.path()); diff != "" {
			t.Errorf("path (-want +got):\n%s", diff)
		}
	})
}

// The retry is answered 421 there: it is known to have been sent again.
func TestM1_TheRetryTurns(t *testing.T) {
	servers := turning(func(s *lab.Server) {
		first := s.Misdirected
		s.Misdirected = func(q *lab.Request) bool { return first(q) || q.Conn == 3 }
	})
	bubble(t, servers, func(r *rig) {
		r.ok("a.example.com")
		var mu sync.Mutex
		told := make(map[transport.Outcome]int)
		ctx := transport.WithTrace(r.t.Context(), &transport.Trace{Misdirected: func(m transport.Misdirected) {
			mu.Lock()
			defer mu.Unlock()
			told[m.Outcome]++
		}})
		r.two(ctx, "a.example.com")
		want := map[transport.Outcome]int{transport.OutcomeRetried: 2, transport.OutcomeAgain: 1}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("outcomes (-want +got):\n%s", diff)
		}
		if n := r.tr.Stats().Retried; n != 1 { // the other one is net/http's
			t.Errorf("Retried = %d", n)
		}
	})
}
