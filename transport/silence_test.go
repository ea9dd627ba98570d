package transport_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

const lost = "http2: client connection lost: nothing was received within 15s of a PING"

// freeze makes the server fall silent on a connection, by the lab's count.
func (r *rig) freeze(conn string) {
	r.t.Helper()
	for _, c := range r.Conns() {
		if strconv.Itoa(c.ID()) == conn {
			c.Freeze()
			return
		}
	}
	r.t.Fatalf("there is no connection %s", conn)
}

// start sends a request whose answer, and how long it took, is to be had later.
func (r *rig) start(req *http.Request) func() (answer, time.Duration) {
	type result struct {
		answer
		took time.Duration
	}
	done := make(chan result, 1)
	begun := time.Now()
	go func() {
		a := r.do(req)
		done <- result{a, time.Since(begun)}
	}()
	return func() (answer, time.Duration) {
		res := <-done
		return res.answer, res.took
	}
}

func (r *rig) pings(conn int) int { return r.Record().Conns()[conn-1].Pings }

func TestP7_ADeadConnectionTakesDownItsOwnRequestsOnly(t *testing.T) {
	servers := map[string]lab.Server{
		"127.0.0.1": {Names: []string{"a.example.com", "b.example.com"}},
		"127.0.0.2": {Names: []string{"c.example.com"}},
	}
	bubble(t, servers, func(r *rig) {
		r.Host("c.example.com", "127.0.0.2")
		dead, alive := r.ok("a.example.com"), r.ok("c.example.com")
		if conn := r.ok("b.example.com"); conn != dead {
			t.Fatalf("b was served on connection %s, not on a's", conn)
		}
		r.freeze(dead)
		sleep(10 * time.Second)
		post := r.start(r.request(r.t.Context(), http.MethodPost, "a.example.com", strings.NewReader("body")))
		gets := []func() (answer, time.Duration){
			r.start(r.request(r.t.Context(), http.MethodGet, "a.example.com", nil)),
			r.start(r.request(r.t.Context(), http.MethodGet, "b.example.com", nil)),
		}
		for range 14 {
			sleep(time.Second)
			if conn := r.ok("c.example.com"); conn != alive {
				t.Errorf("c was served on connection %s, want %s", conn, alive)
			}
		}
		if conns := r.tr.Conns(); len(conns) != 2 {
			t.Errorf("%d connections a second before the end, want 2", len(conns))
		}
		for _, get := range gets {
			a, took := get()
			if a.err != nil || a.conn != "3" || took != 15*time.Second {
				t.Errorf("after %v: %+v, want an answer from a new connection after 15 s", took, a)
			}
		}
		if a, took := post(); a.err == nil || a.err.Error() != lost || took != 15*time.Second {
			t.Errorf("after %v: %+v, want the error of a lost connection after 15 s", took, a)
		}
		if n := r.Record().Count(func(q lab.RequestRecord) bool { return q.Method == http.MethodPost }); n != 0 {
			t.Errorf("the POST was sent again")
		}
		if conn := r.ok("c.example.com"); conn != alive {
			t.Errorf("c was served on connection %s, want %s", conn, alive)
		}
		r.wantHandshakes(3)
	})
}

func TestP7_WhatIsSentAgain(t *testing.T) {
	stream := func() io.Reader { return io.MultiReader(strings.NewReader("body")) }
	for _, test := range []struct {
		name   string
		method string
		key    bool // Idempotency-Key is set
		body   io.Reader
		length int64
		err    string // contained in the error; empty: sent again
	}{
		{"GET", http.MethodGet, false, nil, 0, ""},
		{"HEAD", http.MethodHead, false, nil, 0, ""},
		{"PUT", http.MethodPut, false, strings.NewReader("body"), 4, lost},
		{"POST without a body", http.MethodPost, false, nil, 0, lost},
		{"POST with Idempotency-Key", http.MethodPost, true, strings.NewReader("body"), 4, ""},
		{"and a short stream", http.MethodPost, true, stream(), 4, ""},
		{"and a stream", http.MethodPost, true, stream(), -1, "its body was read"},
		{"GET with a stream", http.MethodGet, false, stream(), -1, "its body was read"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, map[string]lab.Server{"127.0.0.1": {Names: []string{"*.example.com"}, Handler: echo}}, func(r *rig) {
				r.ok("a.example.com")
				r.freeze("1")
				sleep(10 * time.Second)
				req := r.request(r.t.Context(), test.method, "a.example.com", test.body)
				req.ContentLength = test.length
				if test.key {
					req.Header.Set("Idempotency-Key", "1")
				}
				a, took := r.start(req)()
				if took != 15*time.Second {
					t.Errorf("it took %v", took)
				}
				if test.err == "" {
					if a.err != nil || a.status != http.StatusOK || test.body != nil && a.body != test.method+" body" {
						t.Errorf("got %+v", a)
					}
					r.wantHandshakes(2)
					return
				}
				if a.err == nil || !strings.Contains(a.err.Error(), test.err) || !strings.Contains(a.err.Error(), lost) {
					t.Errorf("got %+v", a)
				}
				var timeout net.Error
				if errors.As(a.err, &timeout) {
					t.Errorf("%v is a net.Error, which it is not from net/http", a.err)
				}
				r.wantHandshakes(1)
			})
		})
	}
}

func TestP7_ADownloadUnderWayFails(t *testing.T) {
	servers := map[string]lab.Server{"127.0.0.1": {
		Names: []string{"*.example.com"},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path == "/download" {
				io.WriteString(w, "x")
				w.(http.Flusher).Flush()
				<-req.Context().Done()
			}
		}),
	}}
	bubble(t, servers, func(r *rig) {
		req := r.request(r.t.Context(), http.MethodGet, "a.example.com", nil)
		req.URL.Path = "/download"
		get := r.start(req)
		sleep(time.Second)
		r.freeze("1")
		sleep(10 * time.Second)
		r.ok("b.example.com") // which takes 15 s
		a, took := get()
		if a.body != "x" || a.err == nil || a.err.Error() != lost || took != 26*time.Second {
			t.Errorf("after %v: %+v", took, a)
		}
	})
}

func TestP7_PingTimeoutIsBases(t *testing.T) {
	bubble(t, plain(), func(r *rig) {
		r.tr.Base.HTTP2 = &http.HTTP2Config{PingTimeout: 3 * time.Second}
		r.ok("a.example.com")
		r.freeze("1")
		sleep(10 * time.Second)
		a, took := r.start(r.request(r.t.Context(), http.MethodGet, "a.example.com", nil))()
		if a.err != nil || a.conn != "2" || took != 3*time.Second {
			t.Errorf("after %v: %+v, want an answer from a new connection after 3 s", took, a)
		}
	})
}

func TestP7_NoPingButWithARequestAfterSilence(t *testing.T) {
	bubble(t, plain(), func(r *rig) {
		wantPings := func(want int) {
			t.Helper()
			synctest.Wait() // PINGs are sent beside the request
			if got := r.pings(1); got != want {
				t.Errorf("%d PINGs, want %d", got, want)
			}
		}
		for range 5 {
			r.ok("a.example.com")
			r.ok("b.example.com")
			sleep(10*time.Second - 1)
		}
		wantPings(0)
		sleep(time.Hour)
		wantPings(0)
		for n := range 5 {
			r.ok("a.example.com")
			r.ok("b.example.com")
			wantPings(n + 1)
			sleep(10 * time.Second)
		}
		sleep(time.Hour)
		wantPings(5)
		r.wantHandshakes(1)
	})
}
