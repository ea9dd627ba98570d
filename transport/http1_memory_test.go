package transport_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/internal/lab"
	"github.com/h2coalesce/h2coalesce/transport"
)

// TestP9_AFailedRequestIsNoReasonToAskAgain: Base asks with each connection that
// it makes, and it has one.
func TestP9_AFailedRequestIsNoReasonToAskAgain(t *testing.T) {
	servers := http1(func(s *lab.Server) {
		s.Delay = func(q *lab.Request) time.Duration {
			return map[string]time.Duration{"/": time.Second, "/slow": time.Hour}[q.Path]
		}
	})
	bubble(t, servers, func(r *rig) {
		r.tr.Base.ResponseHeaderTimeout = time.Minute
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { r.ok("a.example.com") })
		}
		wg.Wait()
		q := r.request(r.t.Context(), http.MethodGet, "a.example.com", nil)
		q.URL.Path = "/slow"
		if a := r.do(q); a.err == nil {
			t.Fatalf("got %+v", a)
		}
		r.ok("a.example.com") // on the other one
		r.wantHandshakes(2)
		if s := r.tr.Stats(); s.Dials != 1 {
			t.Errorf("the pool has dialed %d times", s.Dials)
		}
	})
}

// TestP9_HowLongItIsRemembered: 10 minutes from when the host was last asked,
// which it is whenever Base connects.
func TestP9_HowLongItIsRemembered(t *testing.T) {
	t.Run("a connection is kept", func(t *testing.T) {
		bubble(t, http1(nil), func(r *rig) {
			r.ok("a.example.com")
			for _, at := range []time.Duration{time.Minute, 10*time.Minute - 1} {
				time.Sleep(at - time.Since(began(r)))
				r.wantKnown(r.t.Context(), "a.example.com", true)
				r.ok("a.example.com")
			}
			r.wantHandshakes(1)
			time.Sleep(time.Nanosecond)
			r.wantKnown(r.t.Context(), "a.example.com", false)
			r.ok("a.example.com")
			r.wantKnown(r.t.Context(), "a.example.com", true)
			n := r.openConns()
			r.wantHandshakes(2)
			if n != 1 {
				t.Errorf("%d connections are open: the one made to ask is of no use", n)
			}
		})
	})
	t.Run("none is kept", func(t *testing.T) {
		bubble(t, http1(func(s *lab.Server) { s.GoAwayAfter = 1 }), func(r *rig) {
			for i := range 5 {
				r.ok("a.example.com")
				r.wantHandshakes(i + 1)
				time.Sleep(9 * time.Minute)
				r.wantKnown(r.t.Context(), "a.example.com", true)
			}
			if s := r.tr.Stats(); s.Dials != 1 {
				t.Errorf("the pool has dialed %d times", s.Dials)
			}
		})
	})
}

// began returns when the rig's first connection was accepted, at the earliest.
func began(*rig) time.Time { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) }

// TestP9_HowManyAreRemembered: 1024 hosts, those used last. The servers are behind a
// DialTLSContext that hides TLS, and need none.
func TestP9_HowManyAreRemembered(t *testing.T) {
	const bound = 1024
	synctest.Test(t, func(t *testing.T) {
		var wg sync.WaitGroup
		tr := &transport.Transport{Base: &http.Transport{
			DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
				client, server := net.Pipe()
				wg.Go(func() {
					defer server.Close()
					in := bufio.NewReader(server)
					for {
						if _, err := http.ReadRequest(in); err != nil {
							return
						}
						io.WriteString(server, "HTTP/1.1 204 No Content\r\n\r\n")
					}
				})
				return client, nil
			},
		}}
		url := func(i int) string { return fmt.Sprintf("https://h%d.example.com/", i) }
		get := func(i int) {
			res, err := (&http.Client{Transport: tr}).Get(url(i))
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
		}
		known := func(i int) bool {
			d, err := tr.Explain(t.Context(), url(i))
			if err != nil {
				t.Fatal(err)
			}
			return d.Reason == coalesce.ReasonDisabled
		}
		for i := range bound {
			get(i)
		}
		get(0)
		get(bound)
		if !known(0) || known(1) || !known(2) || !known(bound) {
			t.Errorf("known: %v, %v, %v, %v", known(0), known(1), known(2), known(bound))
		}
		if s := tr.Stats(); s.Dials != bound+1 || s.Conns != 0 {
			t.Errorf("%+v", s)
		}
		tr.Close()
		wg.Wait()
	})
}

// TestP9_PartitionsDoNotLearnFromEachOther, though one may have asked.
func TestP9_PartitionsDoNotLearnFromEachOther(t *testing.T) {
	bubble(t, http1(nil), func(r *rig) {
		none, x, y := r.t.Context(), transport.WithPartition(r.t.Context(), "x"), transport.WithPartition(r.t.Context(), "y")
		for i, ctx := range []context.Context{none, x, y} {
			r.wantKnown(ctx, "a.example.com", false)
			r.okContext(ctx, "a.example.com")
			r.wantKnown(ctx, "a.example.com", true)
			r.wantHandshakes(i + 1)
		}
		// What one finds out about a change is its own, too.
		r.Stop("127.0.0.1")
		synctest.Wait()
		if err := r.Serve("127.0.0.1", plain()["127.0.0.1"]); err != nil {
			t.Fatal(err)
		}
		r.okContext(x, "a.example.com")
		r.wantKnown(none, "a.example.com", true)
		r.wantKnown(x, "a.example.com", false)
		r.wantKnown(y, "a.example.com", true)
		for _, ctx := range []context.Context{none, y, none, x, y} {
			r.okContext(ctx, "a.example.com")
		}
		r.wantHandshakes(6)
		if s := r.tr.Stats(); s.Conns != 3 {
			t.Errorf("%+v, want an HTTP/2 connection for each", s)
		}
	})
}
