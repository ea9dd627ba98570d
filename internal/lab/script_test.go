package lab_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

func TestMisdirected(t *testing.T) {
	both(t, lab.Server{
		Misdirected: func(q *lab.Request) bool { return q.Host() == "b.example.com" },
	}, func(t *testing.T, l *lab.Lab, client *http.Client) {
		if resp, _ := get(t, client, l.URL("a.example.com", "/")); resp.StatusCode != 200 {
			t.Error(resp.Status)
		}
		resp, body := get(t, client, l.URL("b.example.com", "/"))
		if resp.StatusCode != 421 || !strings.HasPrefix(body, "misdirected: b.example.com") {
			t.Errorf("%s with %q", resp.Status, body)
		}
		if n := l.Record().Count(func(q lab.RequestRecord) bool { return q.Status == 421 }); n != 1 {
			t.Errorf("%d recorded", n)
		}
	})
}

func TestRefusedRequestsAreRetried(t *testing.T) {
	var refused atomic.Bool
	bubble(t, lab.Server{
		Refuse: func(*lab.Request) bool { return refused.CompareAndSwap(false, true) },
	}, func(t *testing.T, l *lab.Lab, client *http.Client) {
		if resp, _ := get(t, client, l.URL("a.example.com", "/")); resp.StatusCode != 200 {
			t.Error(resp.Status)
		}
		requests := l.Record().Requests()
		var streamErr http2.StreamError
		if len(requests) != 2 || !errors.As(requests[0].Err, &streamErr) || streamErr.Code != http2.ErrCodeRefusedStream {
			t.Errorf("recorded %+v", requests)
		}
	})
}

func TestReset(t *testing.T) {
	both(t, lab.Server{
		Reset: func(q *lab.Request) (http2.ErrCode, bool) { return http2.ErrCodeEnhanceYourCalm, q.Path == "/reset" },
	}, func(t *testing.T, l *lab.Lab, client *http.Client) {
		if _, err := client.Get(l.URL("a.example.com", "/reset")); err == nil || !strings.Contains(err.Error(), "ENHANCE_YOUR_CALM") {
			t.Error(err)
		}
		_, _ = get(t, client, l.URL("a.example.com", "/"))
		if l.Record().Accepted() != 1 {
			t.Error("the connection was not kept")
		}
	})
}

func TestGoAwayAfter(t *testing.T) {
	both(t, lab.Server{GoAwayAfter: 3}, func(t *testing.T, l *lab.Lab, client *http.Client) {
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				for range 3 {
					resp, err := client.Get(l.URL("a.example.com", "/"))
					if err != nil {
						t.Error(err)
						return
					}
					_, _ = io.ReadAll(resp.Body)
					_ = resp.Body.Close()
				}
			})
		}
		wg.Wait()
		if n := l.Record().Count(func(q lab.RequestRecord) bool { return q.Status == 200 }); n != 30 {
			t.Errorf("%d answers recorded", n)
		}
		for _, c := range l.Record().Conns() {
			if c.Requests > 3 {
				t.Errorf("%d requests on one connection", c.Requests)
			}
		}
	})
}

func TestGoAwayClosesTheConnection(t *testing.T) {
	bubble(t, lab.Server{GoAwayAfter: 1}, func(t *testing.T, l *lab.Lab, client *http.Client) {
		_, _ = get(t, client, l.URL("a.example.com", "/"))
		synctest.Wait()
		if len(l.Conns()) != 0 {
			t.Error("it is open")
		}
	})
}

func TestGoAwayFromAHandlerEndsLaterStreams(t *testing.T) {
	bubble(t, lab.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if conn, q := lab.FromRequest(r); q.Path == "/goaway" && conn.ID() == 1 {
			_ = conn.GoAway(q.Stream-2, http2.ErrCodeNo)
		}
	})}, func(t *testing.T, l *lab.Lab, client *http.Client) {
		_, _ = get(t, client, l.URL("a.example.com", "/"))
		_, _ = get(t, client, l.URL("a.example.com", "/goaway"))
		var conns []int
		for _, q := range l.Record().Requests() {
			conns = append(conns, q.Conn)
		}
		if len(conns) != 3 || conns[1] != 1 || conns[2] != 2 {
			t.Errorf("requests on connections %v", conns)
		}
	})
}

func TestFreezeKeepsSilent(t *testing.T) {
	bubble(t, lab.Server{}, func(t *testing.T, l *lab.Lab, client *http.Client) {
		_, _ = get(t, client, l.URL("a.example.com", "/"))
		l.Conns()[0].Freeze()
		client.Timeout = time.Minute
		start := time.Now()
		if _, err := client.Get(l.URL("a.example.com", "/")); err == nil || time.Since(start) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestCutFailsOpenRequests(t *testing.T) {
	both(t, lab.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		conn, _ := lab.FromRequest(r)
		conn.Cut()
		<-r.Context().Done()
	})}, func(t *testing.T, l *lab.Lab, client *http.Client) {
		resp, err := client.Get(l.URL("a.example.com", "/"))
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			_ = resp.Body.Close()
		}
		if err == nil {
			t.Error("no error")
		}
	})
}

func TestClientCertificate(t *testing.T) {
	both(t, lab.Server{ClientAuth: tls.RequestClientCert}, func(t *testing.T, l *lab.Lab, client *http.Client) {
		cert, err := l.CA().Issue(nil, lab.ClientAuth(), lab.CommonName("client"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = get(t, client, l.URL("a.example.com", "/"))
		tr := l.Transport()
		t.Cleanup(tr.CloseIdleConnections)
		tr.TLSClientConfig.Certificates = []tls.Certificate{cert}
		_, _ = get(t, &http.Client{Transport: tr}, l.URL("a.example.com", "/"))
		conns := l.Record().Conns()
		if conns[0].ClientCert || !conns[1].ClientCert {
			t.Errorf("recorded %v, %v", conns[0].ClientCert, conns[1].ClientCert)
		}
	})
}

func TestResumedAndFailedHandshakes(t *testing.T) {
	both(t, lab.Server{}, func(t *testing.T, l *lab.Lab, client *http.Client) {
		cache := tls.NewLRUClientSessionCache(1)
		for range 2 {
			tr := l.Transport()
			t.Cleanup(tr.CloseIdleConnections)
			tr.TLSClientConfig.ClientSessionCache = cache
			_, _ = get(t, &http.Client{Transport: tr}, l.URL("a.example.com", "/"))
		}
		l.Host("else.where", "127.0.0.1")
		if _, err := client.Get(l.URL("else.where", "/")); err == nil {
			t.Error("the certificate was accepted")
		}
		l.Close()
		conns := l.Record().Conns()
		if conns[0].Resumed || !conns[1].Resumed {
			t.Errorf("resumed %v, %v", conns[0].Resumed, conns[1].Resumed)
		}
		if conns[2].Handshake == nil || conns[2].SNI != "else.where" || l.Record().Handshakes() != 2 || l.Record().Accepted() != 3 {
			t.Errorf("recorded %+v", conns[2])
		}
	})
}

func TestHTTP1Host(t *testing.T) {
	both(t, lab.Server{
		Protos:      []string{"http/1.1"},
		GoAwayAfter: 2,
		Misdirected: func(q *lab.Request) bool { return q.Path == "/421" },
		Refuse:      func(q *lab.Request) bool { return q.Path == "/refused" },
	}, func(t *testing.T, l *lab.Lab, client *http.Client) {
		for range 3 {
			if resp, body := get(t, client, l.URL("a.example.com", "/")); resp.Proto != "HTTP/1.1" || !strings.HasPrefix(body, "host=a.example.com") {
				t.Errorf("%s with %q", resp.Proto, body)
			}
		}
		if resp, _ := get(t, client, l.URL("a.example.com", "/421")); resp.StatusCode != 421 {
			t.Error(resp.Status)
		}
		if _, err := client.Post(l.URL("a.example.com", "/refused"), "", strings.NewReader("body")); err == nil {
			t.Error("no error")
		}
		l.Close()
		var got []int
		for _, c := range l.Record().Conns() {
			if c.Proto != "http/1.1" || !c.Closed {
				t.Errorf("recorded %+v", c)
			}
			got = append(got, c.Requests)
		}
		if len(got) != 3 || got[0] != 2 || got[1] != 2 || got[2] != 1 {
			t.Errorf("requests on the connections: %v", got)
		}
		if q := l.Record().Requests(); q[3].Status != 421 || q[4].Err == nil {
			t.Errorf("recorded %+v", q[3:])
		}
	})
}
