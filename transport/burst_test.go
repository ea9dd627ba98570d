package transport_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

// Hosts that are all asked for the first time at once cost one handshake,
// however many they are.
func TestP2_OneHandshakeForABurst(t *testing.T) {
	for _, hosts := range []int{20, 200, 1000} {
		for _, handshake := range []time.Duration{0, 290 * time.Millisecond} {
			t.Run(fmt.Sprintf("%d hosts, %v", hosts, handshake), func(t *testing.T) {
				servers := map[string]lab.Server{"127.0.0.1": {
					Names:          []string{"*.example.com"},
					MaxStreams:     uint32(hosts),
					HandshakeDelay: handshake,
				}}
				bubble(t, servers, func(r *rig) {
					var wg sync.WaitGroup
					for i := range hosts {
						host := fmt.Sprintf("h%d.example.com", i)
						r.Host(host, "127.0.0.1")
						wg.Go(func() { r.ok(host) })
					}
					wg.Wait()
					r.wantHandshakes(1)
					if s := r.tr.Stats(); s.Dials != 1 || s.Shared != uint64(hosts-1) {
						t.Errorf("%d dials, %d hosts share", s.Dials, s.Shared)
					}
				})
			})
		}
	}
}
