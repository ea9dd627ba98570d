package transport_test

import (
	"bytes"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

// A server that ends the stream of an upload which waits for its writer lets the
// caller go at once, as with net/http, and the body is closed.
func TestP6_AnUploadThatIsResetIsLetGo(t *testing.T) {
	servers := map[string]lab.Server{"127.0.0.1": {
		Names: []string{"*.example.com"},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if c, x := lab.FromRequest(q); q.Method == http.MethodPost {
				c.Reset(x.Stream, http2.ErrCodeInternal)
			}
		}),
	}}
	bubble(t, servers, func(r *rig) {
		r.ok("a.example.com")
		pr, pw := io.Pipe()
		req := r.request(r.t.Context(), http.MethodPost, "a.example.com", pr)
		if a := r.do(req); a.err == nil {
			t.Errorf("got %+v", a)
		}
		if _, err := pw.Write([]byte("late")); err != io.ErrClosedPipe {
			t.Errorf("the writer got %v, want that the body is closed", err)
		}
		synctest.Wait()
		if s := r.tr.Stats(); s.Streams != 0 {
			t.Errorf("%d streams are kept", s.Streams)
		}
	})
}

// A body that can be had again, and whose Read waits when its stream is refused,
// is had again: that the engine ends the wait is not the body's failure.
func TestP6_ABodyThatWaitsIsSentAgain(t *testing.T) {
	var refused atomic.Bool
	servers := map[string]lab.Server{"127.0.0.1": {
		Names:   []string{"*.example.com"},
		Handler: echo,
		Refuse:  func(q *lab.Request) bool { return q.Method == http.MethodPost && !refused.Swap(true) },
	}}
	bubble(t, servers, func(r *rig) {
		r.ok("a.example.com")
		pr, _ := io.Pipe() // nobody writes
		req := r.request(r.t.Context(), http.MethodPost, "a.example.com", pr)
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader([]byte("again"))), nil }
		if a := r.do(req); a.status != 200 || a.body != "POST again" || a.err != nil {
			t.Errorf("got %+v", a)
		}
	})
}
