package transport_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/h2coalesce/h2coalesce/internal/lab"
	"github.com/h2coalesce/h2coalesce/transport"
)

func TestMain(m *testing.M) {
	// The first look-up of a process starts what must not belong to a bubble.
	net.DefaultResolver.LookupNetIP(context.Background(), "ip", "localhost")
	goleak.VerifyTestMain(m)
}

// rig is a Transport and the lab that it talks to.
type rig struct {
	*lab.Lab
	tr *transport.Transport
	t  *testing.T
}

// newRig makes a rig whose servers, by IP address, are reached over sockets.
func newRig(t *testing.T, servers map[string]lab.Server) *rig {
	l, err := lab.New()
	if err != nil {
		t.Fatal(err)
	}
	return rigOf(t, l, &http.Transport{TLSClientConfig: l.TLSConfig()}, servers)
}

// bubble runs test in a synctest bubble, on a rig whose servers are reached
// without sockets.
func bubble(t *testing.T, servers map[string]lab.Server, test func(*rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l, err := lab.NewInMemory()
		if err != nil {
			t.Fatal(err)
		}
		r := rigOf(t, l, &http.Transport{TLSClientConfig: l.TLSConfig(), DialContext: l.DialContext}, servers)
		test(r)
		r.tr.Close()
		r.Close()
	})
}

func rigOf(t *testing.T, l *lab.Lab, base *http.Transport, servers map[string]lab.Server) *rig {
	t.Cleanup(l.Close)
	for ip, s := range servers {
		if err := l.Serve(ip, s); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range []string{"a", "b", "c"} {
		l.Host(h+".example.com", "127.0.0.1")
	}
	tr := &transport.Transport{Base: base, Resolver: l.Resolver()}
	t.Cleanup(func() { tr.Close() })
	return &rig{Lab: l, tr: tr, t: t}
}

// shy is a server that answers for b only where it was asked for b.
func shy(answer http.Handler) map[string]lab.Server {
	return map[string]lab.Server{"127.0.0.1": {
		Names:       []string{"*.example.com"},
		Misdirected: misdirectsB,
		Handler:     answer,
	}}
}

func misdirectsB(r *lab.Request) bool { return r.Host() == "b.example.com" && r.SNI != "b.example.com" }

func plain() map[string]lab.Server {
	return map[string]lab.Server{"127.0.0.1": {Names: []string{"*.example.com"}}}
}

// answer is what came back for a request.
type answer struct {
	status  int
	conn    string // the number of the connection, by the lab's count
	body    string
	trailer http.Header
	err     error
}

func (r *rig) request(ctx context.Context, method, host string, body io.Reader) *http.Request {
	r.t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, r.URL(host, "/"), body)
	if err != nil {
		r.t.Fatal(err)
	}
	return req
}

func (r *rig) do(req *http.Request) answer {
	res, err := r.tr.RoundTrip(req)
	if err != nil {
		return answer{err: err}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if res.Request != req {
		r.t.Errorf("Response.Request is not the request")
	}
	return answer{res.StatusCode, res.Header.Get("X-Lab-Conn"), string(b), res.Trailer, err}
}

func (r *rig) get(host string) answer {
	r.t.Helper()
	return r.do(r.request(r.t.Context(), http.MethodGet, host, nil))
}

// ok fetches from host and returns the number of the connection.
func (r *rig) ok(host string) string {
	r.t.Helper()
	return r.okContext(r.t.Context(), host)
}

func (r *rig) okContext(ctx context.Context, host string) string {
	r.t.Helper()
	a := r.do(r.request(ctx, http.MethodGet, host, nil))
	if a.err != nil || a.status != http.StatusOK {
		r.t.Errorf("GET %s: status %d, %v", host, a.status, a.err)
	}
	return a.conn
}

// path returns the requests that the servers saw, as "host@connection status".
func (r *rig) path() (path []string) {
	for _, q := range r.Record().Requests() {
		path = append(path, fmt.Sprintf("%s@%d %d", q.Host()[:1], q.Conn, q.Status))
	}
	return path
}

func (r *rig) wantHandshakes(want int) {
	r.t.Helper()
	if got := r.Record().Handshakes(); got != want {
		r.t.Errorf("%d handshakes, want %d", got, want)
	}
}

// sleep lets time pass, in a bubble.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
