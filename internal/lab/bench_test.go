package lab_test

import (
	"io"
	"net/http"
	"testing"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

// BenchmarkRequest is the price of a small request, net/http's client included.
func BenchmarkRequest(b *testing.B) {
	l, err := lab.New()
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	if err := l.Serve("127.0.0.1", lab.Server{Names: []string{"a.example.com"}}); err != nil {
		b.Fatal(err)
	}
	l.Host("a.example.com", "127.0.0.1")
	l.Record().DisableRequests()
	tr := l.Transport()
	defer tr.CloseIdleConnections()
	request := func() {
		req, _ := http.NewRequest("GET", l.URL("a.example.com", "/"), nil)
		resp, err := tr.RoundTrip(req)
		if err != nil {
			b.Error(err)
			return
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	request()
	b.Run("sequential", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			request()
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(16)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				request()
			}
		})
	})
}
