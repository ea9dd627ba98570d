package transport_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/h2coalesce/h2coalesce/internal/lab"
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
