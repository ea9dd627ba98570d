package transport_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

// A client sends a rig's requests by its transport, or by net/http's.
type client struct {
	*rig
	http.RoundTripper
	base    *http.Transport // which dials
	nethttp bool
}

const (
	silent = 10 * time.Second        // after such a silence there is a PING
	gone   = silent + 15*time.Second // when a silence for ever is known to be one
)

// withClient runs test in a bubble with one or the other.
func withClient(t *testing.T, nethttp bool, servers map[string]lab.Server, test func(client)) {
	t.Helper()
	bubble(t, servers, func(r *rig) {
		c := client{r, r.tr, r.tr.Base, nethttp}
		if nethttp {
			c.base = r.Transport()
			c.base.HTTP2 = &http.HTTP2Config{SendPingTimeout: silent} // without, it never looks
			defer c.base.CloseIdleConnections()
			c.RoundTripper = c.base
		}
		test(c)
	})
}

// send sends a request and returns its answer when that is asked for.
func (c client) send(req *http.Request) func() answer {
	done := make(chan answer, 1)
	go func() { done <- c.result(req) }()
	return func() answer { return <-done }
}

func (c client) result(req *http.Request) answer {
	res, err := c.RoundTrip(req)
	if err != nil {
		return answer{err: err}
	}
	body, err := io.ReadAll(res.Body)
	if err == nil {
		res.Body.Close() // an answer that broke off is over as it is
	}
	return answer{status: res.StatusCode, body: string(body), trailer: res.Trailer, err: err}
}

func (c client) get(host, path string) func() answer {
	c.t.Helper()
	req := c.request(c.t.Context(), http.MethodGet, host, nil)
	req.URL.Path = path
	return c.send(req)
}

// connTo returns the oldest connection to an address.
func (c client) connTo(ip string) *lab.Conn {
	for _, conn := range c.Conns() {
		if strings.HasPrefix(conn.LocalAddr().String(), ip) {
			return conn
		}
	}
	c.t.Fatalf("there is no connection to %s", ip)
	return nil
}

// settled checks that nothing is left of the requests.
func (c client) settled() {
	c.t.Helper()
	synctest.Wait()
	if s := c.tr.Stats(); s.Streams != 0 || s.Waiting != 0 || s.Idle != s.Conns {
		c.t.Errorf("left: %+v", s)
	}
}

// outcome is what became of a request, in a word.
//
//	once   it was written once, and answered
//	again  it was written twice, and answered
//	error  it failed
//	spent  it failed, since its body cannot be had again
//	part   the answer broke off
type outcome struct {
	word string
	err  string
	took time.Duration
}

func outcomeOf(a answer, written int32, took time.Duration) outcome {
	o := outcome{word: "error", took: took}
	if a.err != nil {
		o.err = a.err.Error()
	}
	switch {
	case a.err != nil && written > 1 || written > 2:
		o.word = fmt.Sprintf("written %d times: %v", written, a.err)
	case a.err == nil:
		o.word = []string{"once", "again"}[written-1]
	case a.status != 0:
		o.word = "part"
	case strings.Contains(o.err, "cannot send the request again"), strings.Contains(o.err, "cannot retry err"):
		o.word = "spent"
	}
	return o
}

// play runs the fault. Another request is under way on the same connection, if
// the one in question is not to be its first, and one on another connection.
func (f *fault) play(t *testing.T, nethttp bool) (o outcome) {
	withClient(t, nethttp, f.servers(), func(c client) {
		f.over = make(chan struct{})
		c.Host("c.example.com", "127.0.0.2")
		elsewhere := c.get("c.example.com", "/beside")
		beside := elsewhere
		if !f.first {
			c.get("a.example.com", "/warm")()
			beside = c.get("a.example.com", "/beside")
		}
		synctest.Wait()

		begun := time.Now()
		a := f.send(c)
		o = outcomeOf(a, f.written.Load(), time.Since(begun))
		f.check(c, o, a)
		close(f.over)
		if !f.first {
			ours, theirs := cell(f.end.beside)
			if want := pick(nethttp, theirs, ours); (beside().err != nil) != (want == "error") {
				t.Errorf("the request on the same connection: want %q", want)
			}
		}
		if a := elsewhere(); a.err != nil {
			t.Errorf("the request on another connection: %v", a.err)
		}
		c.settled()
	})
	return o
}

// send sends the request, and strikes it where the server does not.
func (f *fault) send(c client) answer {
	early := f.point == handshake || f.point == settings || f.point == unread && !f.first
	if f.point == unread && !f.first {
		c.connTo("127.0.0.1").Freeze()
	}
	wait := c.send(f.request(c.t.Context(), c.rig))
	if early {
		time.Sleep(pause)
		f.end.act(c.connTo("127.0.0.1"), 0)
	}
	if f.end.name == silence.name {
		time.Sleep(silent)
		if !early {
			time.Sleep(pause)
		}
		c.get("a.example.com", "/warm") // with which a PING goes out
	}
	return wait()
}

// check checks what the word leaves open.
func (f *fault) check(c client, o outcome, a answer) {
	c.t.Helper()
	synctest.Wait()
	arrivals := int32(0)
	if f.point > unread && o.word != "once" {
		arrivals++ // in vain
	}
	if a.err == nil {
		arrivals++
	}
	if n := f.arrived.Load(); n != arrivals {
		c.t.Errorf("%s: it arrived %d times, want %d", o.word, n, arrivals)
	}
	for i, b := range f.bodies {
		// net/http loses the body that it gets for a new connection.
		if n := b.closes.Load(); n != 1 && !(c.nethttp && i > 0) {
			c.t.Errorf("%s: body %d was closed %d times", o.word, i, n)
		}
	}
	whole, sent := f.want()
	if a.err == nil && (a.body != whole || a.trailer.Get("X-Sum") == "") {
		c.t.Errorf("%s: got %q with trailer %v, want %q", o.word, a.body, a.trailer, whole)
	}
	if a.err != nil && a.body != sent {
		c.t.Errorf("%s: got %q, then %v, want %q", o.word, a.body, a.err, sent)
	}
}

// cell splits what a table says of ours and, where that differs, of net/http's.
func cell(s string) (ours, theirs string) {
	ours, theirs, differs := strings.Cut(s, "/")
	if !differs {
		theirs = ours
	}
	return ours, theirs
}

func pick[T any](first bool, a, b T) T {
	if first {
		return a
	}
	return b
}
