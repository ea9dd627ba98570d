package transport_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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

// drained is a body whose Close reads what was not read, which takes long.
type drained struct {
	io.Reader
	sent chan struct{}
}

func (b drained) Close() error {
	<-b.sent
	return nil
}

// What net/http's server gives to a handler has a Close that may wait for the client
// to send the rest, and the client for the answer. A server that refuses an upload
// is heard at once, whatever is to be closed.
func TestD_AnAnswerDoesNotWaitForTheBodysClose(t *testing.T) {
	const size = 1 << 15
	servers := plain()
	s := servers["127.0.0.1"]
	s.OnConn = func(c *lab.Conn) { c.Settings(window(4)) }
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Method == http.MethodPost {
			io.ReadFull(q.Body, make([]byte, 4))
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}
	})
	servers["127.0.0.1"] = s
	for _, test := range []struct {
		name    string
		nethttp bool
		length  int64
	}{
		{"net/http", true, size},
		{"kept", false, size},
		{"not kept", false, -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			withClient(t, test.nethttp, servers, func(c client) {
				c.get("a.example.com", "/")()
				for range 10 { // who closes it is a draw
					body := drained{strings.NewReader(strings.Repeat("x", size)), make(chan struct{})}
					q := c.request(c.t.Context(), http.MethodPost, "a.example.com", nil)
					q.Body, q.ContentLength = body, test.length
					late := time.AfterFunc(time.Minute, func() { close(body.sent) })
					res, err := c.RoundTrip(q)
					if err != nil {
						t.Fatal(err)
					}
					if !late.Stop() {
						t.Error("the answer has come when the body was closed")
					} else {
						close(body.sent)
					}
					res.Body.Close()
				}
				c.settled()
			})
		})
	}
}
