package transport_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/h2coalesce/h2coalesce/internal/lab"
	"github.com/h2coalesce/h2coalesce/pool"
	"github.com/h2coalesce/h2coalesce/transport"
)

// A request that is sent again for a 421, and then again because its stream is
// refused, has been sent again for the 421 once.
func TestM1_ARetryThatIsRefusedCountsOnce(t *testing.T) {
	servers := shy(nil)
	s := servers["127.0.0.1"]
	var refused atomic.Bool
	s.Refuse = func(q *lab.Request) bool { return q.SNI == "b.example.com" && !refused.Swap(true) }
	servers["127.0.0.1"] = s
	bubble(t, servers, func(r *rig) {
		r.ok("a.example.com")
		r.ok("b.example.com")
		if diff := cmp.Diff([]string{"a@1 200", "b@1 421", "b@2 0", "b@2 200"}, r.path()); diff != "" {
			t.Errorf("path (-want +got):\n%s", diff)
		}
		if n := r.tr.Stats().Retried; n != 1 {
			t.Errorf("Retried = %d", n)
		}
	})
}

// GetBody may fail with what looks like an error of the connection that the
// request would be sent on: its body may come from another one. It is the
// caller's all the same, and the stream is not lost.
func TestP6_GetBodysErrorIsTheCallers(t *testing.T) {
	servers := shy(nil)
	s := servers["127.0.0.1"]
	s.Refuse = func(q *lab.Request) bool { return q.Method == http.MethodPost && q.Host() == "a.example.com" }
	servers["127.0.0.1"] = s
	for _, host := range []string{"a.example.com", "b.example.com"} { // b's is sent again for a 421
		t.Run(host, func(t *testing.T) {
			bubble(t, servers, func(r *rig) {
				r.ok("a.example.com")
				broken := fmt.Errorf("upstream: %w", http2.StreamError{StreamID: 1, Code: http2.ErrCodeRefusedStream})
				asked := 0
				q := r.request(r.t.Context(), http.MethodPost, host, bytes.NewReader([]byte("body")))
				q.GetBody = func() (io.ReadCloser, error) {
					asked++
					return nil, broken
				}
				began := time.Now()
				if a := r.do(q); !errors.Is(a.err, broken) || asked != 1 || time.Since(began) != 0 {
					t.Errorf("got %+v after %v, GetBody was called %d times", a, time.Since(began), asked)
				}
				if s := r.tr.Stats(); s.Streams != 0 {
					t.Errorf("%d streams are kept", s.Streams)
				}
			})
		})
	}
}

// IsMisdirected is not asked about a request whose body is gone: the answer is
// the caller's, and the host stays on the connection.
func TestM6_WhatCannotBeSentAgainIsNotAskedAbout(t *testing.T) {
	servers := plain()
	s := servers["127.0.0.1"]
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if b, _ := io.ReadAll(q.Body); len(b) > 0 {
			w.WriteHeader(http.StatusNotFound)
		}
	})
	servers["127.0.0.1"] = s
	bubble(t, servers, func(r *rig) {
		asked := 0
		r.tr.IsMisdirected = func(res *http.Response) bool {
			asked++
			return res.StatusCode == http.StatusNotFound
		}
		r.ok("a.example.com")
		r.ok("b.example.com") // shared, and proof
		stream := io.MultiReader(strings.NewReader("stream"))
		if a := r.do(r.request(r.t.Context(), http.MethodPost, "b.example.com", stream)); a.status != http.StatusNotFound {
			t.Errorf("got %+v", a)
		}
		r.ok("b.example.com")
		if asked != 2 {
			t.Errorf("asked %d times, want about the two requests without a body", asked)
		}
		r.wantHandshakes(1)
	})
}

// A writer that waits for the answer, with a body that is kept, has it: the
// attempt that was answered 421 is given up though it waits for the writer.
func TestM7_TheWriterMayWaitForTheAnswer(t *testing.T) {
	servers := shy(nil)
	s := servers["127.0.0.1"]
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		io.Copy(w, q.Body)
	})
	servers["127.0.0.1"] = s
	bubble(t, servers, func(r *rig) {
		r.ok("a.example.com")
		pr, pw := io.Pipe()
		q := r.request(r.t.Context(), http.MethodPost, "b.example.com", pr)
		q.ContentLength = 4
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
		defer cancel()
		res, err := r.tr.RoundTrip(q.WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		go func() {
			io.WriteString(pw, "body")
			pw.Close()
		}()
		if b, err := io.ReadAll(res.Body); res.StatusCode != http.StatusOK || string(b) != "body" || err != nil {
			t.Errorf("got %d, %q, %v", res.StatusCode, b, err)
		}
		if n := r.tr.Stats().Retried; n != 1 {
			t.Errorf("Retried = %d", n)
		}
	})
}

// A body that cannot be had twice is not read any more for the attempt that has
// been answered, from when it is decided that there will be another.
func TestM6_NothingIsReadForAnAttemptThatIsOver(t *testing.T) {
	servers := plain()
	s := servers["127.0.0.1"]
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if _, x := lab.FromRequest(q); q.Method == http.MethodPost && x.SNI == "a.example.com" {
			w.Header().Set("X-Gone", "1")
			w.(http.Flusher).Flush()
			<-q.Context().Done()
			return
		}
		io.Copy(w, q.Body)
	})
	servers["127.0.0.1"] = s
	bubble(t, servers, func(r *rig) {
		r.tr.Base.ExpectContinueTimeout = time.Second // then the engine reads the body
		r.tr.IsMisdirected = func(res *http.Response) bool { return res.Header.Get("X-Gone") != "" }
		r.ok("a.example.com")
		r.ok("b.example.com") // proof
		told := 0
		ctx := transport.WithTrace(r.t.Context(), &transport.Trace{Misdirected: func(m transport.Misdirected) {
			told++
			sleep(2 * time.Second)
		}})
		q := r.request(ctx, http.MethodPost, "b.example.com", io.MultiReader(strings.NewReader("stream")))
		q.Header.Set("Expect", "100-continue")
		if a := r.do(q); a.status != http.StatusOK || a.body != "stream" || a.err != nil {
			t.Errorf("got %+v", a)
		}
		if told != 1 {
			t.Errorf("told of %d misdirected responses", told)
		}
	})
}

// A request whose Cancel is closed while the connection for its retry is dialed.
func TestM9_RequestCancelEndsTheRetry(t *testing.T) {
	bubble(t, shy(nil), func(r *rig) {
		dials := 0
		r.tr.Base.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if dials++; dials > 1 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return r.DialContext(ctx, network, addr)
		}
		r.ok("a.example.com")
		q := r.request(r.t.Context(), http.MethodGet, "b.example.com", nil)
		cancel := make(chan struct{})
		q.Cancel = cancel //lint:ignore SA1019 a drop-in heeds it
		time.AfterFunc(time.Second, func() { close(cancel) })
		began := time.Now()
		if a := r.do(q); !errors.Is(a.err, pool.ErrCanceled) || !errors.As(a.err, new(*transport.MisdirectedError)) || time.Since(began) != time.Second {
			t.Errorf("got %v after %v", a.err, time.Since(began))
		}
	})
}

// countingContext counts what waits for its end, which never comes.
type countingContext struct {
	context.Context
	done    chan struct{}
	waiting atomic.Int32
}

func (c *countingContext) Done() <-chan struct{} { return c.done }

func (c *countingContext) AfterFunc(func()) (stop func() bool) {
	c.waiting.Add(1)
	return sync.OnceValue(func() bool { c.waiting.Add(-1); return true })
}

// An attempt to send a body that cannot be had twice has a context of its own.
// With the attempt it ends, however that does: the caller's may live for ever.
func TestM6_AnAttemptLeavesNothingInItsContext(t *testing.T) {
	servers := shy(echo)
	s := servers["127.0.0.1"]
	s.Reset = func(q *lab.Request) (http2.ErrCode, bool) { return http2.ErrCodeInternal, q.Method == "RESET" }
	servers["127.0.0.1"] = s
	for _, test := range []struct{ name, method, host string }{
		{"answered", "POST", "a.example.com"},
		{"answered without a body", "HEAD", "a.example.com"},
		{"misdirected", "POST", "b.example.com"},
		{"reset", "RESET", "a.example.com"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, servers, func(r *rig) {
				r.ok("a.example.com")
				ctx := &countingContext{Context: r.t.Context(), done: make(chan struct{})}
				q := r.request(ctx, test.method, test.host, io.MultiReader(strings.NewReader("body")))
				q.ContentLength = 4
				r.do(q)
				synctest.Wait()
				if n := ctx.waiting.Load(); n != 0 {
					t.Errorf("%d contexts wait for the end of the request's", n)
				}
			})
		})
	}
}

// A 421 from the connection that a request has waited for, while it was dialed
// for another host, is not the answer.
func TestM1_A421OfAJoinedConnectionIsRetried(t *testing.T) {
	servers := shy(nil)
	s := servers["127.0.0.1"]
	s.HandshakeDelay = 100 * time.Millisecond
	servers["127.0.0.1"] = s
	bubble(t, servers, func(r *rig) {
		var wg sync.WaitGroup
		for _, h := range []string{"a.example.com", "b.example.com"} {
			wg.Go(func() { r.ok(h) })
			synctest.Wait()
		}
		wg.Wait()
		if s := r.tr.Stats(); s.Joined != 1 || s.Retried != 1 || s.Dials != 2 {
			t.Errorf("%+v", s)
		}
	})
}
