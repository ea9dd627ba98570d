package transport_test

import (
	"net/http"
	"runtime"
	"testing"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/transport"
)

// BenchmarkIdleConn opens a connection to each of 200 hosts and leaves it idle.
// B/conn is the memory in use for one, stacks and the server's part included,
// which is the same for each client.
func BenchmarkIdleConn(b *testing.B) {
	const hosts = 200
	l, urls := benchLab(b, hosts)
	inUse := func() float64 {
		runtime.GC()
		runtime.GC() // what pools let go of takes another turn
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc + m.StackInuse)
	}
	compare(b, l, func(b *testing.B, client func() (http.RoundTripper, func())) {
		var sum float64
		for b.Loop() {
			before := inUse()
			rt, closeClient := client()
			if t, ok := rt.(*transport.Transport); ok {
				t.Policy.Match = coalesce.MatchNever // or there would be one connection
			}
			for _, u := range urls {
				fetch(b, rt, u)
			}
			sum += (inUse() - before) / hosts
			closeClient()
		}
		b.ReportMetric(sum/float64(b.N), "B/conn")
	})
}
