package transport_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/h2coalesce/h2coalesce/internal/lab"
	"github.com/h2coalesce/h2coalesce/pool"
	"github.com/h2coalesce/h2coalesce/transport"
)

// TestD_ErrorsAreNetHTTPs sends requests that cannot succeed with net/http and
// with a Transport, and compares the errors.
func TestD_ErrorsAreNetHTTPs(t *testing.T) {
	r := newRig(t, map[string]lab.Server{
		"127.0.0.1": {Names: []string{"*.example.com"}},
		"127.0.0.2": {Names: []string{"elsewhere.example.net"}},
	})
	r.Host("mismatch.example.org", "127.0.0.1")
	r.Host("closed.example.com", "127.0.0.9")
	theirs := r.Lab.Transport()
	defer theirs.CloseIdleConnections()
	for _, test := range []struct {
		name string
		edit func(*http.Request)
	}{
		{"no URL", func(q *http.Request) { q.URL = nil }},
		{"no header", func(q *http.Request) { q.Header = nil }},
		{"header name", func(q *http.Request) { q.Header["bad name"] = []string{"x"} }},
		{"header value", func(q *http.Request) { q.Header["X-Secret"] = []string{"\x00secret"} }},
		{"trailer name", func(q *http.Request) { q.Trailer = http.Header{"bad name": {"x"}} }},
		{"method", func(q *http.Request) { q.Method = "BAD METHOD" }},
		{"scheme", func(q *http.Request) { q.URL.Scheme = "gopher" }},
		{"no host", func(q *http.Request) { q.URL.Host = "" }},
		{"certificate", func(q *http.Request) {
			q.URL.Host = strings.Replace(q.URL.Host, "a.example.com", "mismatch.example.org", 1)
		}},
		{"refused", func(q *http.Request) { q.URL.Host = strings.Replace(q.URL.Host, "a.example", "closed.example", 1) }},
		{"canceled", func(q *http.Request) {
			ctx, cancel := context.WithCancelCause(q.Context())
			cancel(errors.New("the cause"))
			*q = *q.WithContext(ctx)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var errs [2]error
			for i, rt := range []http.RoundTripper{theirs, r.tr} {
				req := r.request(t.Context(), http.MethodGet, "a.example.com", nil)
				test.edit(req)
				res, err := rt.RoundTrip(req)
				if err == nil {
					res.Body.Close()
				}
				errs[i] = err
			}
			if errs[0] == nil || errs[1] == nil || errs[0].Error() != errs[1].Error() {
				t.Errorf("net/http: %v\nours:     %v", errs[0], errs[1])
			}
			if fmt.Sprintf("%T", errs[0]) != fmt.Sprintf("%T", errs[1]) {
				t.Errorf("net/http: %T\nours:     %T", errs[0], errs[1])
			}
		})
	}
}

// TestD_HTTPTraceEventsAreNetHTTPs compares the events of a cold and a warm
// request.
func TestD_HTTPTraceEventsAreNetHTTPs(t *testing.T) {
	for _, protos := range [][]string{{"h2", "http/1.1"}, {"http/1.1"}} {
		t.Run(protos[0], func(t *testing.T) {
			r := newRig(t, map[string]lab.Server{"127.0.0.1": {Names: []string{"*.example.com"}, Protos: protos}})
			theirs := &http.Transport{TLSClientConfig: r.TLSConfig(), ForceAttemptHTTP2: true}
			theirs.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				_, port, _ := net.SplitHostPort(addr)
				trace := httptrace.ContextClientTrace(ctx)
				trace.DNSStart(httptrace.DNSStartInfo{}) // as a look-up would
				trace.DNSDone(httptrace.DNSDoneInfo{})
				return new(net.Dialer).DialContext(ctx, network, "127.0.0.1:"+port)
			}
			defer theirs.CloseIdleConnections()
			for _, state := range []string{"cold", "warm"} {
				want, got := events(t, theirs, r), events(t, r.tr, r)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s (-net/http +ours):\n%s", state, diff)
				}
			}
		})
	}
}

// events returns what httptrace tells of a request to a.example.com.
func events(t *testing.T, rt http.RoundTripper, r *rig) []string {
	t.Helper()
	var mu sync.Mutex
	var all []string
	add := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, fmt.Sprintf(format, args...))
	}
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		GetConn: func(hostPort string) { add("GetConn %s", hostPort) },
		GotConn: func(i httptrace.GotConnInfo) {
			add("GotConn reused=%v idle=%v %v", i.Reused, i.WasIdle, i.Conn.RemoteAddr())
		},
		DNSStart:             func(httptrace.DNSStartInfo) { add("DNSStart") },
		DNSDone:              func(i httptrace.DNSDoneInfo) { add("DNSDone %v", i.Err) },
		ConnectStart:         func(network, addr string) { add("ConnectStart %s %s", network, addr) },
		ConnectDone:          func(network, addr string, err error) { add("ConnectDone %s %s %v", network, addr, err) },
		TLSHandshakeStart:    func() { add("TLSHandshakeStart") },
		TLSHandshakeDone:     func(s tls.ConnectionState, err error) { add("TLSHandshakeDone %s %v", s.NegotiatedProtocol, err) },
		WroteHeaders:         func() { add("WroteHeaders") },
		WroteRequest:         func(i httptrace.WroteRequestInfo) { add("WroteRequest %v", i.Err) },
		GotFirstResponseByte: func() { add("GotFirstResponseByte") },
	})
	res, err := rt.RoundTrip(r.request(ctx, http.MethodGet, "a.example.com", nil))
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	mu.Lock()
	defer mu.Unlock()
	// The answer may begin while the end of the request is being told.
	gotConn := slices.IndexFunc(all, func(e string) bool { return strings.HasPrefix(e, "GotConn") })
	slices.Sort(all[gotConn+1:])
	return all
}

func TestD_PlainHTTPIsBases(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }))
	defer s.Close()
	var tr transport.Transport
	defer tr.Close()
	res, err := (&http.Client{Transport: &tr}).Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); string(b) != "HTTP/1.1" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestC1_RequestsThroughAProxyAreBases(t *testing.T) {
	r := newRig(t, plain())
	var connects []string
	tunneled := tunnel(t, r, new(atomic.Int32))
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		connects = append(connects, q.Method+" "+q.Host)
		tunneled.ServeHTTP(w, q)
	}))
	defer proxy.Close()
	u, _ := url.Parse(proxy.URL)
	r.tr.Base.Proxy = func(q *http.Request) (*url.URL, error) {
		if strings.HasPrefix(q.URL.Host, "c.") {
			return nil, nil
		}
		return u, nil
	}
	if a, b, c := r.ok("a.example.com"), r.ok("b.example.com"), r.ok("c.example.com"); a == b || b == c || a == c {
		t.Errorf("connections %s, %s through the proxy and %s beside it are not all different", a, b, c)
	}
	want := []string{"CONNECT " + u2(r, "a"), "CONNECT " + u2(r, "b")}
	if diff := cmp.Diff(want, connects); diff != "" {
		t.Errorf("the proxy saw (-want +got):\n%s", diff)
	}
	if s := r.tr.Stats(); s.Dials != 1 {
		t.Errorf("the pool dialed %d times, want for c alone", s.Dials)
	}
	r.tr.Close()
}

func u2(r *rig, name string) string { return fmt.Sprintf("%s.example.com:%d", name, r.Port()) }

func TestP9_HTTP1Hosts(t *testing.T) {
	servers := map[string]lab.Server{"127.0.0.1": {Names: []string{"*.example.com"}, Protos: []string{"http/1.1"}, Handler: echo}}
	t.Run("one handshake, bodies and all", func(t *testing.T) {
		r := newRig(t, servers)
		for range 3 {
			req := r.request(t.Context(), http.MethodPost, "a.example.com", io.MultiReader(strings.NewReader("stream")))
			if a := r.do(req); a.status != 200 || a.body != "POST stream" {
				t.Errorf("got %+v", a)
			}
		}
		r.wantHandshakes(1)
		r.tr.Close()
	})
	t.Run("many at once", func(t *testing.T) {
		r := newRig(t, servers)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if a := r.get("a.example.com"); a.status != 200 {
					t.Errorf("got %+v", a)
				}
			})
		}
		wg.Wait()
		r.tr.Close()
	})
	t.Run("joined by other hosts", func(t *testing.T) {
		r := newRig(t, servers)
		var wg sync.WaitGroup
		for _, h := range []string{"a", "b", "c"} {
			wg.Go(func() {
				if a := r.get(h + ".example.com"); a.status != 200 {
					t.Errorf("%s: got %+v", h, a)
				}
			})
		}
		wg.Wait()
		r.wantHandshakes(3)
		r.tr.Close()
	})
	t.Run("a canceled request is no reason to ask again", func(t *testing.T) {
		r := newRig(t, servers)
		r.get("a.example.com")
		if a := r.do(r.request(canceled(t.Context()), http.MethodGet, "a.example.com", nil)); !errors.Is(a.err, context.Canceled) {
			t.Errorf("got %+v", a)
		}
		r.get("a.example.com")
		r.wantHandshakes(1)
		r.tr.Close()
	})
	t.Run("a host that turns to HTTP/2", func(t *testing.T) {
		r := newRig(t, servers)
		r.get("a.example.com")
		r.Stop("127.0.0.1")
		if err := r.Serve("127.0.0.1", lab.Server{Names: []string{"*.example.com"}}); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			r.ok("a.example.com")
		}
		if s := r.tr.Stats(); s.Conns != 1 {
			t.Errorf("%+v, want the host to be the pool's again", s)
		}
		r.tr.Close()
	})
}

func TestD_HTTP2CanBeForbidden(t *testing.T) {
	onlyHTTP1 := new(http.Protocols)
	onlyHTTP1.SetHTTP1(true)
	for name, base := range map[string]*http.Transport{
		"Protocols":    {Protocols: onlyHTTP1},
		"TLSNextProto": {TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, plain())
			base.TLSClientConfig = r.TLSConfig()
			r.tr.Base = base
			r.ok("a.example.com")
			if c := r.Record().Conns(); len(c) != 1 || c[0].Proto != "http/1.1" {
				t.Errorf("%+v", c)
			}
			r.tr.Close()
		})
	}
}

func TestD_CloseAndDisableKeepAlives(t *testing.T) {
	t.Run("Request.Close", func(t *testing.T) {
		r := newRig(t, plain())
		for range 2 {
			req := r.request(t.Context(), http.MethodGet, "a.example.com", nil)
			req.Close = true
			if a := r.do(req); a.status != 200 {
				t.Errorf("got %+v", a)
			}
		}
		r.wantHandshakes(2)
	})
	t.Run("DisableKeepAlives", func(t *testing.T) {
		r := newRig(t, plain())
		r.tr.Base.DisableKeepAlives = true
		r.ok("a.example.com")
		r.ok("a.example.com")
		r.wantHandshakes(2)
	})
}

func TestD_BaseIsNotModified(t *testing.T) {
	r := newRig(t, plain())
	base := r.tr.Base
	config := base.TLSClientConfig
	r.ok("a.example.com")
	r.tr.Close()
	if base.TLSClientConfig != config || len(config.NextProtos) != 0 || base.DialTLSContext != nil ||
		base.TLSNextProto != nil || base.ForceAttemptHTTP2 {
		t.Errorf("Base was changed: %+v", base)
	}
}

func TestD_Timeouts(t *testing.T) {
	t.Run("ResponseHeaderTimeout", func(t *testing.T) {
		servers := map[string]lab.Server{"127.0.0.1": {
			Names: []string{"*.example.com"},
			Delay: func(*lab.Request) time.Duration { return time.Hour },
		}}
		bubble(t, servers, func(r *rig) {
			r.tr.Base.ResponseHeaderTimeout = time.Second
			start := time.Now()
			a := r.get("a.example.com")
			var timeout net.Error
			if !errors.As(a.err, &timeout) || !timeout.Timeout() || time.Since(start) != time.Second {
				t.Errorf("got %v after %v", a.err, time.Since(start))
			}
		})
	})
	t.Run("TLSHandshakeTimeout", func(t *testing.T) {
		servers := map[string]lab.Server{"127.0.0.1": {Names: []string{"*.example.com"}, HandshakeDelay: time.Hour}}
		bubble(t, servers, func(r *rig) {
			r.tr.Base.TLSHandshakeTimeout = time.Second
			start := time.Now()
			a := r.get("a.example.com")
			if a.err == nil || a.err.Error() != "net/http: TLS handshake timeout" || time.Since(start) != time.Second {
				t.Errorf("got %v after %v", a.err, time.Since(start))
			}
		})
	})
	t.Run("IdleConnTimeout", func(t *testing.T) {
		bubble(t, plain(), func(r *rig) {
			r.tr.Base.IdleConnTimeout = time.Minute
			r.ok("a.example.com")
			sleep(time.Minute - time.Second)
			r.ok("b.example.com") // on the same connection, which starts to idle anew
			sleep(time.Minute - time.Second)
			if n := len(r.tr.Conns()); n != 1 {
				t.Errorf("%d connections open before the time", n)
			}
			sleep(time.Second)
			if n := len(r.tr.Conns()); n != 0 {
				t.Errorf("%d connections open after it", n)
			}
		})
	})
}

// Base.RegisterProtocol holds for other schemes than http and https.
func TestD_RegisteredSchemesAreBases(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "greeting"), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	base := &http.Transport{}
	base.RegisterProtocol("file", http.NewFileTransport(http.Dir(dir)))
	tr := &transport.Transport{Base: base}
	defer tr.Close()
	client := &http.Client{Transport: tr}
	res, err := client.Get("file:///greeting")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); string(b) != "hello" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	if res, err := client.Get("gopher://example.com/"); err == nil {
		res.Body.Close()
		t.Error("a scheme that nobody knows is served")
	}
}

// SetLimits replaces Limits, and what it leaves at zero is Base's again.
func TestSetLimits(t *testing.T) {
	bubble(t, plain(), func(r *rig) {
		r.tr.Base.IdleConnTimeout = time.Minute
		r.tr.Limits.IdleTimeout = time.Hour
		r.ok("a.example.com")
		sleep(time.Hour - time.Second)
		if n := len(r.tr.Conns()); n != 1 {
			t.Errorf("%d connections before IdleTimeout", n)
		}
		r.tr.SetLimits(pool.Limits{})
		sleep(0)
		if n := len(r.tr.Conns()); n != 0 {
			t.Errorf("%d connections, idle for longer than Base.IdleConnTimeout", n)
		}
		r.tr.SetLimits(pool.Limits{MaxHostsPerConn: 1})
		if a, b := r.ok("a.example.com"), r.ok("b.example.com"); a == b {
			t.Error("shared beyond MaxHostsPerConn")
		}
	})
}
