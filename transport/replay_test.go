package transport_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
)

// echo answers with the method and the body.
var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	w.Header().Set("Trailer", "X-Sum")
	fmt.Fprintf(w, "%s %s", r.Method, body)
	w.Header().Set("X-Sum", fmt.Sprint(len(body), r.Trailer.Get("X-Sent")))
})

func TestM6_BodiesAcrossA421(t *testing.T) {
	const kept = 64 << 10
	whole := strings.Repeat("0123456789abcdef", 8<<16)
	for _, test := range []struct {
		name    string
		size    int
		getBody bool
		length  bool // Content-Length is known
		retried bool // else it goes on an own connection at once
	}{
		{"bytes.Reader of 8 MiB", 8 << 20, true, true, true},
		{"stream of 1 byte", 1, false, true, true},
		{"stream of 64 KiB", kept, false, true, true},
		{"stream of 64 KiB and 1 byte", kept + 1, false, true, false},
		{"stream of unknown length", 1, false, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, shy(echo), func(r *rig) {
				r.ok("a.example.com")
				sent := whole[:test.size]
				req := r.request(r.t.Context(), http.MethodPost, "b.example.com", strings.NewReader(sent))
				if !test.getBody {
					req.GetBody = nil
					req.Body = io.NopCloser(iotest.HalfReader(strings.NewReader(sent)))
				}
				if !test.length {
					req.ContentLength = -1
				}
				if a := r.do(req); a.status != 200 || a.body != "POST "+sent || a.err != nil {
					t.Errorf("status %d, %d bytes back, %v", a.status, len(a.body), a.err)
				}
				want := []string{"a@1 200", "b@2 200"}
				if test.retried {
					want = []string{"a@1 200", "b@1 421", "b@2 200"}
				}
				if diff := cmp.Diff(want, r.path()); diff != "" {
					t.Errorf("path (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestM6_AProvenHostsStreamIsShared(t *testing.T) {
	bubble(t, plain(), func(r *rig) {
		a := r.ok("a.example.com")
		r.ok("c.example.com") // answered there: proof
		req := r.request(r.t.Context(), http.MethodPost, "c.example.com", io.MultiReader(strings.NewReader("stream")))
		if c := r.do(req); c.status != 200 || c.conn != a {
			t.Errorf("got %+v, want 200 on a's connection, %s", c, a)
		}
	})
}

func TestTheCallersBodyIsClosedOnce(t *testing.T) {
	for _, test := range []struct {
		name string
		host string
		ctx  func(context.Context) context.Context
		edit func(*http.Request)
	}{
		{"answered", "a.example.com", nil, nil},
		{"misdirected", "b.example.com", nil, nil},
		{"unknown host", "x.example.com", nil, nil},
		{"not covered", "a.example.org", nil, nil},
		{"canceled before", "a.example.com", canceled, nil},
		{"invalid header", "a.example.com", nil, func(r *http.Request) { r.Header.Set("X-Bad", "\x00") }},
		{"invalid method", "a.example.com", nil, func(r *http.Request) { r.Method = "BAD METHOD" }},
		{"no host", "a.example.com", nil, func(r *http.Request) { r.URL.Host = "" }},
		{"bad host", "a.example.com", nil, func(r *http.Request) { r.URL.Host = "a b" }},
		{"no header", "a.example.com", nil, func(r *http.Request) { r.Header = nil }},
		{"no URL", "a.example.com", nil, func(r *http.Request) { r.URL = nil }},
		{"unknown scheme", "a.example.com", nil, func(r *http.Request) { r.URL.Scheme = "gopher" }},
	} {
		for _, getBody := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, GetBody %v", test.name, getBody), func(t *testing.T) {
				bubble(t, shy(echo), func(r *rig) {
					r.Host("a.example.org", "127.0.0.1")
					r.ok("c.example.com")
					ctx := r.t.Context()
					if test.ctx != nil {
						ctx = test.ctx(ctx)
					}
					var opened, closed int
					open := func() (io.ReadCloser, error) {
						opened++
						return &closeCounter{bytes.NewReader([]byte("body")), &closed}, nil
					}
					req := r.request(ctx, http.MethodPost, test.host, nil)
					req.Body, _ = open()
					req.ContentLength = 4
					if getBody {
						req.GetBody = open
					}
					if test.edit != nil {
						test.edit(req)
					}
					if res, err := r.tr.RoundTrip(req); err == nil {
						io.Copy(io.Discard, res.Body)
						res.Body.Close()
					}
					synctest.Wait()
					if opened != closed {
						t.Errorf("%d bodies opened, %d closed", opened, closed)
					}
				})
			})
		}
	}
}

type closeCounter struct {
	io.Reader
	closed *int
}

func (c *closeCounter) Close() error { *c.closed++; return nil }

func canceled(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx
}
