package pool_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/h2coalesce/h2coalesce/pool"
)

// BenchmarkCrowd has many requests in line for few connections, all of which
// may serve each of them, and serves them all.
func BenchmarkCrowd(b *testing.B) {
	for _, size := range []struct{ waiting, conns int }{{1000, 10}, {10_000, 10}, {1000, 100}, {10_000, 100}} {
		b.Run(fmt.Sprintf("waiting=%d/conns=%d", size.waiting, size.conns), func(b *testing.B) {
			hosts := names("h%d.test", 200)
			for b.Loop() {
				r := newRig(b, limits(pool.Limits{MaxConns: size.conns}))
				r.handshake, r.maxStreams = 0, 1
				r.shared(hosts...)
				var wg sync.WaitGroup
				for i := range size.waiting {
					wg.Go(func() {
						l, err := r.Get(context.Background(), request(hosts[i%len(hosts)]))
						if err != nil {
							b.Error(err)
							return
						}
						c := l.Conn().(*fakeConn)
						c.mu.Lock()
						c.streams--
						c.mu.Unlock()
						l.Release()
					})
				}
				wg.Wait()
				r.Close()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(size.waiting), "ns/request")
		})
	}
}
