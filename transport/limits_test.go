package transport_test

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

// A hold is a server that answers /hold when it is let go, one request after
// the other, and all else at once.
type hold struct{ release chan struct{} }

func (h *hold) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, _ := lab.FromRequest(r)
	if r.URL.Path == "/hold" {
		select {
		case <-h.release:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("X-Lab-Conn", strconv.Itoa(c.ID()))
	w.Write(body)
}

// withHold runs test with such a server, on which a connection is open.
func withHold(t *testing.T, s lab.Server, test func(*rig, *lab.Conn, *hold)) {
	t.Helper()
	h := new(hold)
	s.Names, s.Handler = []string{"*.example.com"}, h
	bubble(t, map[string]lab.Server{"127.0.0.1": s}, func(r *rig) {
		h.release = make(chan struct{})
		r.ok("a.example.com")
		test(r, r.Conns()[0], h)
		client{rig: r}.settled()
	})
}

// wantObeyed wants no request above a limit that was acknowledged.
func (r *rig) wantObeyed() {
	r.t.Helper()
	for _, c := range r.Record().Conns() {
		if c.Overshoot > 0 {
			r.t.Errorf("connection %d: %d requests above the limit", c.ID, c.Overshoot)
		}
	}
}

// hold begins a request that the server holds.
func (r *rig) hold(host string) func() (answer, time.Duration) {
	r.t.Helper()
	req := r.request(r.t.Context(), http.MethodPost, host, strings.NewReader("body"))
	req.URL.Path = "/hold"
	defer synctest.Wait()
	return r.start(req)
}

// wantAnswer wants the answer on a connection, after so long. The engine may see
// SETTINGS later than the pool, which then asks it again after a millisecond.
func (r *rig) wantAnswer(wait func() (answer, time.Duration), conn string, took time.Duration) {
	r.t.Helper()
	if a, d := wait(); a.err != nil || a.conn != conn || d != took && d != took+time.Millisecond {
		r.t.Errorf("after %v: %+v, want an answer on connection %s after %v", d, a, conn, took)
	}
}

func (r *rig) setMaxStreams(c *lab.Conn, n uint32) {
	r.t.Helper()
	if err := c.Settings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: n}); err != nil {
		r.t.Error(err)
	}
	synctest.Wait()
}

// The server announces the end, and later says which streams it has seen
// (RFC 9113 §6.8). Those it has not are POSTs, and sent again.
func TestP6_GoAwayInTwoSteps(t *testing.T) {
	withHold(t, lab.Server{}, func(r *rig, conn *lab.Conn, h *hold) {
		stays, goes := r.hold("a.example.com"), r.hold("b.example.com")
		conn.GoAway(math.MaxInt32, http2.ErrCodeNo)
		synctest.Wait()
		if c := r.ok("c.example.com"); c != "2" {
			t.Errorf("after the announcement c went on connection %s", c)
		}
		conn.GoAway(3, http2.ErrCodeNo) // 1 was the first request, 5 is b's
		synctest.Wait()
		close(h.release)
		r.wantAnswer(stays, "1", 0)
		r.wantAnswer(goes, "2", 0)
		synctest.Wait()
		if s := r.tr.Stats(); s.Conns != 1 || len(r.Conns()) != 1 {
			t.Errorf("the connection is kept: %+v", s)
		}
		r.wantHandshakes(2)
	})
}

// P4: what is under way when the limit falls below it goes on; nothing is added
// to it before there is room again.
func TestP4_TheLimitFallsBelowWhatIsInUse(t *testing.T) {
	for _, test := range []struct {
		name     string
		maxConns int
		next     string // the connection of the request that comes then
		after    time.Duration
	}{
		{"another connection is dialed", 0, "2", 0},
		{"MaxConns", 1, "1", 3 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			withHold(t, lab.Server{MaxStreams: 4}, func(r *rig, conn *lab.Conn, h *hold) {
				limits := r.tr.Limits
				limits.MaxConns = test.maxConns
				r.tr.SetLimits(limits)
				r.lowerTheLimit(conn, h, test.next, test.after)
			})
		})
	}
}

// lowerTheLimit lowers it from four streams, all in use, to two. The next request
// is to be answered on a connection, after so long.
func (r *rig) lowerTheLimit(conn *lab.Conn, h *hold, nextConn string, after time.Duration) {
	r.t.Helper()
	var held []func() (answer, time.Duration)
	for range 4 {
		held = append(held, r.hold("a.example.com"))
	}
	r.setMaxStreams(conn, 2)
	next := r.start(r.request(r.t.Context(), http.MethodGet, "b.example.com", nil))
	for range 3 {
		sleep(time.Second)
		h.release <- struct{}{}
	}
	synctest.Wait()
	r.wantAnswer(next, nextConn, after)
	if c := r.ok("c.example.com"); c != "1" {
		r.t.Errorf("with one stream of two in use, c went on connection %s", c)
	}
	sleep(time.Second)
	close(h.release)
	for _, wait := range held {
		if a, _ := wait(); a.err != nil || a.conn != "1" || a.body != "body" {
			r.t.Errorf("under way: %+v", a)
		}
	}
	r.wantObeyed()
}

// P4: a limit that falls while requests are on their way has the server refuse
// some. They come through, and no caller sees it. One may have passed the engine's
// own check when that acknowledges the limit.
func TestP4_TheLimitFallsUnderABurst(t *testing.T) {
	withHold(t, lab.Server{MaxStreams: 50}, func(r *rig, conn *lab.Conn, _ *hold) {
		var waits []func() (answer, time.Duration)
		for i := range 50 {
			if i == 25 {
				go conn.Settings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
			}
			waits = append(waits, r.start(r.request(r.t.Context(), http.MethodPost, "a.example.com", strings.NewReader("body"))))
		}
		for _, wait := range waits {
			if a, _ := wait(); a.err != nil || a.body != "body" {
				t.Errorf("got %+v", a)
			}
		}
		if n := r.Record().Count(func(q lab.RequestRecord) bool { return q.Method == http.MethodPost && q.Status == 200 }); n != 50 {
			t.Errorf("%d answers, want 50", n)
		}
	})
}

func TestP4_ALimitOfZero(t *testing.T) {
	const limit = 10
	ask := func(r *rig) (waits []func() (answer, time.Duration)) {
		for _, h := range []string{"a", "b", "c", "a"} {
			waits = append(waits, r.start(r.request(r.t.Context(), http.MethodGet, h+".example.com", nil)))
		}
		synctest.Wait()
		return waits
	}
	t.Run("for a moment", func(t *testing.T) {
		withHold(t, lab.Server{MaxStreams: limit}, func(r *rig, conn *lab.Conn, h *hold) {
			held := r.hold("a.example.com")
			r.setMaxStreams(conn, 0)
			waits := ask(r)
			sleep(time.Second - 1)
			r.setMaxStreams(conn, limit)
			for _, wait := range waits {
				r.wantAnswer(wait, "1", time.Second-1)
			}
			close(h.release)
			r.wantAnswer(held, "1", time.Second-1)
			r.wantObeyed()
			r.wantHandshakes(1)
		})
	})
	t.Run("for long", func(t *testing.T) {
		withHold(t, lab.Server{MaxStreams: limit}, func(r *rig, conn *lab.Conn, h *hold) {
			held := r.hold("a.example.com")
			r.setMaxStreams(conn, 0)
			for _, wait := range ask(r) {
				r.wantAnswer(wait, "2", time.Second)
			}
			close(h.release)
			r.wantAnswer(held, "1", time.Second)
			r.wantObeyed()
			r.wantHandshakes(2)
		})
	})
	t.Run("on each connection", func(t *testing.T) {
		none := lab.Server{
			Settings: []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 0}},
			OnConn: func(c *lab.Conn) {
				if c.ID() == 1 {
					c.Settings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: limit})
				}
			},
		}
		withHold(t, none, func(r *rig, conn *lab.Conn, _ *hold) {
			r.setMaxStreams(conn, 0)
			waits := ask(r)
			ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
			defer cancel()
			if a := r.do(r.request(ctx, http.MethodGet, "a.example.com", nil)); !errors.Is(a.err, context.DeadlineExceeded) {
				t.Errorf("got %+v, want to wait as long as the context", a)
			}
			sleep(time.Hour - time.Minute)
			r.wantHandshakes(2)
			r.setMaxStreams(conn, limit)
			for _, wait := range waits {
				r.wantAnswer(wait, "1", time.Hour)
			}
			r.wantHandshakes(2)
			r.wantObeyed()
		})
	})
}

// A caller who does not read an answer, and a server that does not read an
// upload, hold up nobody else on the connection.
func TestP4_ASlowReaderHoldsUpNobody(t *testing.T) {
	t.Run("ours", func(t *testing.T) { readSlowly(t, false) })
	t.Run("net/http", func(t *testing.T) { readSlowly(t, true) })
}

func readSlowly(t *testing.T, nethttp bool) {
	big := strings.Repeat("0123456789abcdef", 8<<20/16)
	upload := big[:3<<20]
	var read chan struct{}
	handler := http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch q.URL.Path {
		case "/download":
			io.WriteString(w, big)
		case "/upload":
			<-read
			io.Copy(w, q.Body)
		}
	})
	servers := map[string]lab.Server{"127.0.0.1": {Names: []string{"a.example.com"}, Handler: handler}}
	withClient(t, nethttp, servers, func(c client) {
		read = make(chan struct{})
		get := c.request(c.t.Context(), http.MethodGet, "a.example.com", nil)
		get.URL.Path = "/download"
		slow, err := c.RoundTrip(get)
		if err != nil {
			t.Fatal(err)
		}
		post := c.request(c.t.Context(), http.MethodPost, "a.example.com", strings.NewReader(upload))
		post.URL.Path = "/upload"
		uploaded := c.send(post)
		synctest.Wait() // both have used up their windows

		begun := time.Now()
		for range 100 {
			if a := c.get("a.example.com", "/")(); a.err != nil {
				t.Fatal(a.err)
			}
		}
		if took := time.Since(begun); took != 0 {
			t.Errorf("the others took %v", took)
		}
		close(read)
		if a := uploaded(); a.body != upload {
			t.Errorf("%d bytes of the upload came back, %v", len(a.body), a.err)
		}
		body, err := io.ReadAll(slow.Body)
		if slow.Body.Close(); err != nil || string(body) != big {
			t.Errorf("%d bytes, %v", len(body), err)
		}
		c.wantHandshakes(1)
		c.settled()
	})
}
