package transport_test

import (
	"crypto/tls"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

// A request that is sent again for a 421, and then handed to net/http, and then
// to the pool again since the host has turned to HTTP/2, has still been sent
// again once.
func TestM1_AHostThatTurnsAfterA421(t *testing.T) {
	var handshakes atomic.Int32
	var strict atomic.Bool
	servers := map[string]lab.Server{"127.0.0.1": {
		Names: []string{"a.example.com"},
		TLS: func(c *tls.Config) {
			c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
				h := c.Clone()
				h.GetConfigForClient = nil
				if handshakes.Add(1) == 2 {
					time.Sleep(50 * time.Millisecond) // both requests come to wait for it
					h.NextProtos = []string{"http/1.1"}
				}
				return h, nil
			}
		},
		Misdirected: func(q *lab.Request) bool { return strict.Load() && q.Stream > 0 },
		Handler:     http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(100 * time.Millisecond) }),
	}}
	bubble(t, servers, func(r *rig) {
		r.ok("a.example.com")
		strict.Store(true)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { r.get("a.example.com") })
		}
		wg.Wait()
		misdirected := 0
		for _, q := range r.Record().Requests() {
			if q.Status == http.StatusMisdirectedRequest {
				misdirected++
			}
		}
		if misdirected != 3 {
			t.Errorf("%d 421s, want two first ones and a second: %v", misdirected, r.path())
		}
		if s := r.tr.Stats(); s.Retried > 2 {
			t.Errorf("%d requests were sent again, of two", s.Retried)
		}
	})
}
