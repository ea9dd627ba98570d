package transport_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync"
	"testing"

	"github.com/h2coalesce/h2coalesce/internal/h2"
	"github.com/h2coalesce/h2coalesce/internal/lab"
	"github.com/h2coalesce/h2coalesce/transport"
)

// The benchmarks run the same work with net/http and with this package against
// one set of servers, so that benchstat -col /client prints the ratio.

func benchLab(b *testing.B, hosts int) (*lab.Lab, []string) {
	b.Helper()
	l, err := lab.New()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(l.Close)
	if err := l.Serve("127.0.0.1", lab.Server{Names: []string{"*.example.com"}}); err != nil {
		b.Fatal(err)
	}
	l.Record().DisableRequests()
	urls := make([]string, hosts)
	for i := range urls {
		host := fmt.Sprintf("h%d.example.com", i)
		l.Host(host, "127.0.0.1")
		urls[i] = l.URL(host, "/")
	}
	return l, urls
}

// clients returns the round trippers to compare, by name.
func clients(l *lab.Lab) map[string]func() (http.RoundTripper, func()) {
	return map[string]func() (http.RoundTripper, func()){
		"client=net-http": func() (http.RoundTripper, func()) {
			t := l.Transport()
			t.MaxIdleConnsPerHost = 100
			return t, t.CloseIdleConnections
		},
		"client=h2coalesce": func() (http.RoundTripper, func()) {
			t := &transport.Transport{
				Base:     &http.Transport{TLSClientConfig: l.TLSConfig()},
				Resolver: l.Resolver(),
			}
			return t, func() { t.Close() }
		},
	}
}

func fetch(b testing.TB, rt http.RoundTripper, url string) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		b.Error(err)
		return
	}
	res, err := rt.RoundTrip(req)
	if err != nil {
		b.Error(err)
		return
	}
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		b.Error(err)
	}
	res.Body.Close()
}

func compare(b *testing.B, l *lab.Lab, run func(*testing.B, func() (http.RoundTripper, func()))) {
	for _, name := range []string{"client=net-http", "client=h2coalesce"} {
		b.Run(name, func(b *testing.B) { run(b, clients(l)[name]) })
	}
}

func BenchmarkWarmSequential(b *testing.B) {
	l, urls := benchLab(b, 1)
	compare(b, l, func(b *testing.B, client func() (http.RoundTripper, func())) {
		rt, closeClient := client()
		defer closeClient()
		fetch(b, rt, urls[0])
		b.ReportAllocs()
		for b.Loop() {
			fetch(b, rt, urls[0])
		}
	})
}

func BenchmarkWarm20HostsBy80(b *testing.B) {
	l, urls := benchLab(b, 20)
	fetchAll := func(b *testing.B, client func() (http.RoundTripper, func())) {
		rt, closeClient := client()
		defer closeClient()
		for _, u := range urls {
			fetch(b, rt, u)
		}
		b.ReportAllocs()
		b.SetParallelism(40)
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				fetch(b, rt, urls[i%len(urls)])
			}
		})
	}
	compare(b, l, fetchAll)
	b.Run("client=raw", func(b *testing.B) {
		fetchAll(b, func() (http.RoundTripper, func()) { return rawConn(b, l) })
	})
}

// BenchmarkCold also has the requests sent on one raw connection, the least that
// the work can cost.
func BenchmarkCold(b *testing.B) {
	for _, hosts := range []int{50, 200} {
		l, urls := benchLab(b, hosts)
		b.Run(fmt.Sprintf("hosts=%d", hosts), func(b *testing.B) {
			fetchAll := func(b *testing.B, client func() (http.RoundTripper, func())) {
				before := cpuTime(b)
				for b.Loop() {
					rt, closeClient := client()
					var wg sync.WaitGroup
					for _, u := range urls {
						wg.Go(func() { fetch(b, rt, u) })
					}
					wg.Wait()
					closeClient()
				}
				b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
			}
			compare(b, l, fetchAll)
			b.Run("client=raw", func(b *testing.B) {
				fetchAll(b, func() (http.RoundTripper, func()) { return rawConn(b, l) })
			})
		})
	}
}

// rawConn is one HTTP/2 connection of the engine's, without a pool.
func rawConn(b *testing.B, l *lab.Lab) (http.RoundTripper, func()) {
	config := l.TLSConfig()
	config.ServerName, config.NextProtos = "h0.example.com", []string{"h2"}
	nc, err := tls.Dial("tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(l.Port())), config)
	if err != nil {
		b.Fatal(err)
	}
	engine, err := h2.NewEngine(&http.Transport{})
	if err != nil {
		b.Fatal(err)
	}
	c, err := engine.NewConn(nc, noEvents{})
	if err != nil {
		b.Fatal(err)
	}
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		for !c.Reserve() {
			runtime.Gosched() // until SETTINGS have raised the limit
		}
		return c.RoundTrip(req)
	}), func() { c.Close() }
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

type noEvents struct{}

func (noEvents) Settings(uint32)       {}
func (noEvents) GoAway(uint32, uint32) {}
func (noEvents) Unusable()             {}
func (noEvents) Origin([]string, int)  {}
func (noEvents) Closed(error)          {}

const bulk = 64 << 20

func benchBulk(b *testing.B, newRequest func(url string) *http.Request) {
	l, err := lab.New()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(l.Close)
	chunk := make([]byte, 64<<10)
	if err := l.Serve("127.0.0.1", lab.Server{
		Names: []string{"*.example.com"},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if n, _ := io.Copy(io.Discard, r.Body); n > 0 {
				return
			}
			for range bulk / len(chunk) {
				w.Write(chunk)
			}
		}),
	}); err != nil {
		b.Fatal(err)
	}
	l.Host("h0.example.com", "127.0.0.1")
	url := l.URL("h0.example.com", "/")
	compare(b, l, func(b *testing.B, client func() (http.RoundTripper, func())) {
		rt, closeClient := client()
		defer closeClient()
		b.SetBytes(bulk)
		for b.Loop() {
			res, err := rt.RoundTrip(newRequest(url))
			if err != nil {
				b.Fatal(err)
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
	})
}

func BenchmarkDownload(b *testing.B) {
	benchBulk(b, func(url string) *http.Request {
		req, _ := http.NewRequest(http.MethodGet, url, nil)
		return req
	})
}

func BenchmarkUpload(b *testing.B) {
	body := make([]byte, bulk)
	benchBulk(b, func(url string) *http.Request {
		req, _ := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
		return req
	})
}
