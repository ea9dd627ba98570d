package transport_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

// panics checks that f does.
func panics(t *testing.T, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	f()
}

// An upload whose answer has no body, so that there is nothing to close, ends when
// one of the caller's functions has panicked over the answer, as soon as its writer
// moves. Nothing waits for the end of the request's context.
func TestAPanicInAHookEndsTheUpload(t *testing.T) {
	servers := plain()
	s := servers["127.0.0.1"]
	s.MaxStreams = 1
	s.Handler = http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		if q.Method != http.MethodPost {
			return
		}
		c, x := lab.FromRequest(q)
		if err := c.Frame(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, x.Stream, []byte{0x88}); err != nil { // 200
			t.Error(err)
		}
		<-q.Context().Done()
	})
	servers["127.0.0.1"] = s
	bubble(t, servers, func(r *rig) {
		r.tr.IsMisdirected = func(res *http.Response) bool {
			if res.Request.Method == http.MethodPost {
				panic("hook")
			}
			return false
		}
		r.ok("a.example.com")
		ctx := &countingContext{Context: r.t.Context(), done: make(chan struct{})}
		pr, pw := io.Pipe()
		q := r.request(ctx, http.MethodPost, "b.example.com", pr)
		q.ContentLength = 8
		panics(t, func() { r.do(q) })
		synctest.Wait()
		if n := ctx.waiting.Load(); n != 0 {
			t.Errorf("%d contexts wait for the end of the request's", n)
		}
		io.WriteString(pw, "kept")
		synctest.Wait()
		if _, err := pw.Write([]byte("late")); err != io.ErrClosedPipe {
			t.Errorf("the writer got %v", err)
		}
		r.ok("a.example.com")
		r.wantHandshakes(1)
	})
}

// A connection that speaks HTTP/1.1 is closed when the request that it was dialed
// for cannot take it.
func TestP9_APanicOfGetBodyLosesNoConnection(t *testing.T) {
	servers := shy(nil)
	s := servers["127.0.0.1"]
	s.TLS = http1For("b.example.com")
	servers["127.0.0.1"] = s
	bubble(t, servers, func(r *rig) {
		r.ok("a.example.com")
		q := r.request(context.Background(), http.MethodPost, "b.example.com", bytes.NewReader([]byte("body")))
		q.GetBody = func() (io.ReadCloser, error) { panic("hook") }
		panics(t, func() { r.do(q) })
		if n := r.openConns(); n != 1 {
			t.Errorf("%d connections are open, want a's", n)
		}
	})
}
