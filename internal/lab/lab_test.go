package lab_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open makes a lab with one server and a client for it, both closed with the
// test.
func open(t *testing.T, newLab func() (*lab.Lab, error), s lab.Server) (*lab.Lab, *http.Client) {
	t.Helper()
	l, err := newLab()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	if s.Names == nil {
		s.Names = []string{"*.example.com", "example.com"}
	}
	if err := l.Serve("127.0.0.1", s); err != nil {
		t.Fatal(err)
	}
	l.Host("a.example.com", "127.0.0.1")
	l.Host("b.example.com", "127.0.0.1")
	tr := l.Transport()
	t.Cleanup(tr.CloseIdleConnections)
	return l, &http.Client{Transport: tr}
}

// bubble runs a test in memory and in fake time.
func bubble(t *testing.T, s lab.Server, f func(t *testing.T, l *lab.Lab, client *http.Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l, client := open(t, lab.NewInMemory, s)
		f(t, l, client)
	})
}

// both runs a test over loopback and in a bubble.
func both(t *testing.T, s lab.Server, f func(t *testing.T, l *lab.Lab, client *http.Client)) {
	t.Helper()
	t.Run("loopback", func(t *testing.T) {
		l, client := open(t, lab.New, s)
		f(t, l, client)
	})
	t.Run("memory", func(t *testing.T) { bubble(t, s, f) })
}

func get(t *testing.T, client *http.Client, url string) (*http.Response, string) {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestDefaultHandlerNamesHostAndConnection(t *testing.T) {
	both(t, lab.Server{}, func(t *testing.T, l *lab.Lab, client *http.Client) {
		url := l.URL("a.example.com", "/x?y=1")
		resp, body := get(t, client, url)
		authority := resp.Request.URL.Host
		if want := "host=" + authority + " conn=1\n"; body != want {
			t.Errorf("body %q, want %q", body, want)
		}
		if resp.Proto != "HTTP/2.0" || resp.Header.Get("X-Lab-Conn") != "1" || resp.Header.Get("X-Lab-Host") != authority {
			t.Errorf("%s with header %v", resp.Proto, resp.Header)
		}
		if resp.ContentLength != int64(len(body)) {
			t.Errorf("ContentLength %d, want %d", resp.ContentLength, len(body))
		}
		_, _ = get(t, client, url)

		requests := l.Record().Requests()
		if len(requests) != 2 {
			t.Fatalf("%d requests recorded", len(requests))
		}
		q := requests[0]
		if q.Conn != 1 || q.Stream != 1 || q.SNI != "a.example.com" || q.Authority != authority || q.Host() != "a.example.com" ||
			q.Method != "GET" || q.Path != "/x?y=1" || q.IP().String() != "127.0.0.1" || !q.First || q.Status != 200 || !q.Done || q.Err != nil {
			t.Errorf("recorded %+v", q)
		}
		if requests[1].First {
			t.Error("the second request is said to be the first")
		}
		conn := l.Record().Conns()[0]
		if conn.Proto != "h2" || conn.Requests != 2 || conn.MaxConcurrent != 1 || conn.Closed || conn.Resumed || conn.ClientCert {
			t.Errorf("recorded %+v", conn)
		}
	})
}

func TestManyConcurrentRequests(t *testing.T) {
	both(t, lab.Server{}, func(t *testing.T, l *lab.Lab, client *http.Client) {
		_, _ = get(t, client, l.URL("a.example.com", "/")) // so that there is a connection
		var wg sync.WaitGroup
		for i := range 300 {
			wg.Go(func() {
				resp, err := client.Get(l.URL("a.example.com", fmt.Sprint("/", i)))
				if err != nil {
					t.Error(err)
					return
				}
				defer func() { _ = resp.Body.Close() }()
				if body, err := io.ReadAll(resp.Body); err != nil || !strings.HasSuffix(string(body), "conn=1\n") {
					t.Errorf("%q, %v", body, err)
				}
			})
		}
		wg.Wait()
		if n := l.Record().Count(func(q lab.RequestRecord) bool { return q.Done && q.Status == 200 }); n != 301 {
			t.Errorf("%d requests recorded, want 301", n)
		}
		if l.Record().Handshakes() != 1 || l.Record().Accepted() != 1 {
			t.Errorf("%d handshakes on %d connections, want 1 on 1", l.Record().Handshakes(), l.Record().Accepted())
		}
	})
}

func TestServersShareOnePort(t *testing.T) {
	l, client := open(t, lab.New, lab.Server{})
	if err := l.Serve("127.0.0.2", lab.Server{Names: []string{"c.example.com", "127.0.0.2"}}); err != nil {
		t.Fatal(err)
	}
	l.Host("c.example.com", "127.0.0.2")
	for _, url := range []string{l.URL("c.example.com", "/"), l.URL("127.0.0.2", "/")} {
		_, _ = get(t, client, url)
	}
	for _, q := range l.Record().Requests() {
		if q.IP().String() != "127.0.0.2" || !strings.HasSuffix(q.Authority, fmt.Sprint(":", l.Port())) {
			t.Errorf("%+v", q)
		}
	}
	if err := l.Serve("127.0.0.2", lab.Server{Names: []string{"x"}}); err == nil {
		t.Error("a second server on one address")
	}
}

func TestServeMovesFromATakenPort(t *testing.T) {
	l, err := lab.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	if err := l.Serve("127.0.0.1", lab.Server{Names: []string{"a"}}); err != nil {
		t.Fatal(err)
	}
	before := lab.QuietPort(l)
	squatter, err := net.Listen("tcp", fmt.Sprintf("127.0.0.2:%d", before))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = squatter.Close() }()
	if err := l.Serve("127.0.0.2", lab.Server{Names: []string{"b.example.com"}}); err != nil {
		t.Fatal(err)
	}
	if l.Port() == before {
		t.Fatal("the port did not change")
	}
	for _, ip := range []string{"127.0.0.1", "127.0.0.2"} {
		nc, err := l.DialContext(t.Context(), "tcp", fmt.Sprintf("%s:%d", ip, l.Port()))
		if err != nil {
			t.Fatal(err)
		}
		_ = nc.Close()
	}
	if err := l.Serve("127.0.0.3", lab.Server{Names: []string{"c"}}); err != nil {
		t.Fatal(err)
	}
}

func TestStopRefusesUntilServedAgain(t *testing.T) {
	both(t, lab.Server{}, func(t *testing.T, l *lab.Lab, client *http.Client) {
		_, _ = get(t, client, l.URL("a.example.com", "/"))
		l.Stop("127.0.0.1")
		if _, err := client.Get(l.URL("b.example.com", "/")); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("error %v, want ECONNREFUSED", err)
		}
		if err := l.Serve("127.0.0.1", lab.Server{Names: []string{"b.example.com"}}); err != nil {
			t.Fatal(err)
		}
		_, _ = get(t, client, l.URL("b.example.com", "/"))
	})
}

func TestCloseEndsHandlersAndConnections(t *testing.T) {
	both(t, lab.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})}, func(t *testing.T, l *lab.Lab, client *http.Client) {
		resp, err := client.Get(l.URL("a.example.com", "/"))
		if err != nil {
			t.Fatal(err)
		}
		if len(l.Conns()) != 1 {
			t.Errorf("%d connections", len(l.Conns()))
		}
		l.Close()
		if _, err := io.ReadAll(resp.Body); err == nil {
			t.Error("the body ended without an error")
		}
		_ = resp.Body.Close()
		if q := l.Record().Requests()[0]; q.Status != 200 || q.Err == nil || !q.Done {
			t.Errorf("recorded %+v", q)
		}
		if len(l.Conns()) != 0 || !l.Record().Conns()[0].Closed {
			t.Error("a connection is left")
		}
		if err := l.Serve("127.0.0.9", lab.Server{Names: []string{"x"}}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Serve after Close: %v", err)
		}
	})
}

func TestRecordReset(t *testing.T) {
	bubble(t, lab.Server{}, func(t *testing.T, l *lab.Lab, client *http.Client) {
		_, _ = get(t, client, l.URL("a.example.com", "/"))
		_, _ = get(t, client, l.URL("b.example.com", "/"))
		l.Conns()[0].Cut()
		synctest.Wait()
		r := l.Record()
		r.Reset()
		if r.Handshakes() != 0 || r.Accepted() != 0 || len(r.Requests()) != 0 {
			t.Error("something is left")
		}
		r.DisableRequests()
		_, _ = get(t, client, l.URL("b.example.com", "/"))
		conns := r.Conns()
		if len(conns) != 1 || conns[0].ID != 2 || conns[0].Requests != 1 || len(r.Requests()) != 0 {
			t.Errorf("%+v", conns)
		}
	})
}

func TestDelaysTakeExactlyThatLong(t *testing.T) {
	bubble(t, lab.Server{
		HandshakeDelay: time.Second,
		SettingsDelay:  2 * time.Second,
		Delay: func(q *lab.Request) time.Duration {
			if q.Path == "/slow" {
				return 4 * time.Second
			}
			return 0
		},
	}, func(t *testing.T, l *lab.Lab, client *http.Client) {
		start := time.Now()
		_, _ = get(t, client, l.URL("a.example.com", "/"))
		if d := time.Since(start); d != 3*time.Second {
			t.Errorf("the first request took %v", d)
		}
		_, _ = get(t, client, l.URL("a.example.com", "/slow"))
		if d := time.Since(start); d != 7*time.Second {
			t.Errorf("with the slow one it took %v", d)
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		req, _ := http.NewRequestWithContext(ctx, "GET", l.URL("a.example.com", "/slow"), nil)
		if _, err := client.Do(req); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		synctest.Wait()
		if conn := l.Record().Conns()[0]; conn.Resets != 1 {
			t.Errorf("%d resets recorded", conn.Resets)
		}
		if q := l.Record().Requests()[2]; !q.Done || q.Status != 0 || q.Err == nil {
			t.Errorf("recorded %+v", q)
		}
	})
}
