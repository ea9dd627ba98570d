package transport_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

func TestP6_WhatTheServerDidNotProcessIsSentAgain(t *testing.T) {
	t.Run("GOAWAY", func(t *testing.T) {
		r := newRig(t, map[string]lab.Server{"127.0.0.1": {Names: []string{"*.example.com"}, GoAwayAfter: 5}})
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 10 {
					r.ok("a.example.com")
				}
			})
		}
		wg.Wait()
		if n := r.Record().Count(func(q lab.RequestRecord) bool { return q.Status == 200 }); n != 80 {
			t.Errorf("%d requests were answered, want 80, each once", n)
		}
	})
	t.Run("GOAWAY again and again", func(t *testing.T) {
		servers := map[string]lab.Server{"127.0.0.1": {
			Names:  []string{"*.example.com"},
			OnConn: func(c *lab.Conn) { c.GoAway(0, http2.ErrCodeNo) },
		}}
		bubble(t, servers, func(r *rig) {
			start := time.Now()
			if a := r.get("a.example.com"); a.err == nil {
				t.Errorf("got %+v", a)
			}
			// Each new connection is worth a try at once, but then it takes
			// net/http's pauses, and not for ever.
			if d, n := time.Since(start), r.Record().Handshakes(); d < 63*time.Second || d > 70*time.Second || n != 15 {
				t.Errorf("it took %v and %d connections", d, n)
			}
		})
	})
	t.Run("REFUSED_STREAM", func(t *testing.T) {
		for _, test := range []struct {
			name string
			body func() (io.Reader, bool)
			ok   bool
		}{
			{"no body", func() (io.Reader, bool) { return nil, false }, true},
			{"GetBody", func() (io.Reader, bool) { return strings.NewReader("body"), false }, true},
			{"short stream", func() (io.Reader, bool) { return io.MultiReader(strings.NewReader("body")), true }, true},
			{"stream", func() (io.Reader, bool) { return io.MultiReader(strings.NewReader("body")), false }, false},
		} {
			t.Run(test.name, func(t *testing.T) {
				var mu sync.Mutex
				refused := 0
				servers := map[string]lab.Server{"127.0.0.1": {
					Names: []string{"*.example.com"},
					Refuse: func(*lab.Request) bool {
						mu.Lock()
						defer mu.Unlock()
						refused++
						return refused <= 2
					},
					Handler: echo,
				}}
				bubble(t, servers, func(r *rig) {
					body, known := test.body()
					req := r.request(r.t.Context(), http.MethodPost, "a.example.com", body)
					if known {
						req.ContentLength = 4
					}
					if body != nil && !known && req.GetBody == nil {
						req.ContentLength = -1
						// Let the body be read before the refusal.
						req.Body = io.NopCloser(body)
					}
					a := r.do(req)
					if (a.status == 200) != test.ok {
						t.Errorf("got %+v", a)
					}
					var se http2.StreamError
					if !test.ok && !errors.As(a.err, &se) {
						t.Errorf("got %v, want the stream's error in it", a.err)
					}
				})
			})
		}
	})
	t.Run("what it may have processed is not", func(t *testing.T) {
		servers := map[string]lab.Server{"127.0.0.1": {
			Names: []string{"*.example.com"},
			Reset: func(*lab.Request) (http2.ErrCode, bool) { return http2.ErrCodeInternal, true },
		}}
		bubble(t, servers, func(r *rig) {
			if a := r.get("a.example.com"); a.err == nil {
				t.Errorf("got %+v", a)
			}
			if n := len(r.Record().Requests()); n != 1 {
				t.Errorf("%d requests arrived", n)
			}
		})
	})
}

// A server that refuses what it is sent is not pressed: seven more attempts are
// made, the first one at once, and of many requests no two keep step.
func TestP6_PausesWhereAllIsRefused(t *testing.T) {
	servers := plain()
	s := servers["127.0.0.1"]
	s.Refuse = func(*lab.Request) bool { return true }
	servers["127.0.0.1"] = s
	bubble(t, servers, func(r *rig) {
		var took [2]time.Duration
		var wg sync.WaitGroup
		for i := range took {
			wg.Go(func() {
				began := time.Now()
				if a := r.get("a.example.com"); a.err == nil {
					t.Errorf("got %+v", a)
				}
				took[i] = time.Since(began)
			})
		}
		wg.Wait()
		const pauses = (1 + 2 + 4 + 8 + 16 + 32) * time.Second
		if took[0] == took[1] || min(took[0], took[1]) < pauses || max(took[0], took[1]) > pauses*11/10 {
			t.Errorf("they took %v", took)
		}
		if n := len(r.Record().Requests()); n != 2*8 {
			t.Errorf("%d attempts, want eight each", n)
		}
		r.wantHandshakes(1)
	})
}
