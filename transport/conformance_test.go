package transport_test

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/h2coalesce/h2coalesce/internal/lab"
	"github.com/h2coalesce/h2coalesce/transport"
)

// conformance is what a client does about 421 (Misdirected Request, RFC 9110
// §15.5.20), case by case: the server's script, the requests, and the way they
// take. One certificate covers a, b, c and d, which have one address.
//
// A way is "b@2 421": a request for b on the second connection was answered 421.
// The first connection is always a's. Others tells what other clients do in the
// same case, where that is something else.
type conformance struct {
	name   string
	others string
	server lab.Server // Names are set
	setup  func(*transport.Transport)
	acts   []act
	path   []string
	dials  int // connections made
}

// act is something that a client's user does, or that happens to the client.
type act func(*scene)

// scene is where a case is played.
type scene struct {
	*rig
	refusing atomic.Bool // further dials
}

var conformances = []conformance{
	{
		name:   "b is misdirected, then asked for five times more",
		others: "Firefox closes a's connection, and the retry's after it.",
		server: serves("a", "c", "d"),
		acts:   []act{gets("a", 200), gets("b", 200), times(5, gets("b", 200)), gets("a", 200)},
		path:   []string{"a@1 200", "b@1 421", "6 x b@2 200", "a@1 200"},
		dials:  2,
	},
	{
		name:   "b's own connection closes, then b is asked for again",
		others: "Chromium has forgotten, and b is misdirected again.",
		server: serves("a", "c", "d"),
		acts:   []act{gets("a", 200), gets("b", 200), closeConn(2), gets("b", 200)},
		path:   []string{"a@1 200", "b@1 421", "b@2 200", "b@3 200"},
		dials:  3,
	},
	{
		name:   "all connections close within MisdirectedTTL",
		others: "Chromium and Firefox have forgotten.",
		server: serves("a", "c", "d"),
		acts:   []act{gets("a", 200), gets("b", 200), closeIdle, gets("a", 200), gets("b", 200)},
		path:   []string{"a@1 200", "b@1 421", "b@2 200", "a@3 200", "b@4 200"},
		dials:  4,
	},
	{
		name:   "all connections close, and MisdirectedTTL is over",
		server: serves("a", "c", "d"),
		acts:   []act{gets("a", 200), gets("b", 200), closeIdle, wait(10 * time.Minute), gets("a", 200), gets("b", 200)},
		path:   []string{"a@1 200", "b@1 421", "b@2 200", "a@3 200", "b@3 421", "b@4 200"},
		dials:  4,
	},
	{
		name:   "another host of a's connection is asked for after b was misdirected there",
		others: "Firefox has closed it. OkHttp puts no other host on it any more.",
		server: serves("a", "c", "d"),
		acts:   []act{gets("a", 200), gets("b", 200), gets("c", 200), gets("b", 200), gets("c", 200)},
		path:   []string{"a@1 200", "b@1 421", "b@2 200", "c@1 200", "b@2 200", "c@1 200"},
		dials:  2,
	},
	{
		name:   "five requests for b at once, all of which are misdirected",
		others: "Chromium makes five handshakes and uses one, Firefox opens up to six connections.",
		server: slow(serves("a", "c", "d")),
		acts:   []act{gets("a", 200), atOnce(5, "b")},
		path:   []string{"a@1 200", "5 x b@1 421", "5 x b@2 200"},
		dials:  2,
	},
	{
		name:   "b and c are both misdirected: each gets a connection of its own",
		server: serves("a", "d"),
		acts:   []act{gets("a", 200), gets("b", 200), gets("c", 200)},
		path:   []string{"a@1 200", "b@1 421", "b@2 200", "c@1 421", "c@3 200"},
		dials:  3,
	},
	{
		name:   "a host for which the server says 421 always",
		others: "Chromium and Firefox send every request twice.",
		server: lab.Server{Misdirected: func(q *lab.Request) bool { return first(q.Host()) == "b" }},
		acts:   []act{gets("a", 200), times(5, gets("b", 421))},
		path:   []string{"a@1 200", "b@1 421", "5 x b@2 421"},
		dials:  2,
	},
	{
		name:   "a 421 from a connection that was dialed for the request",
		others: "Chromium sends the request again, on the same connection.",
		server: lab.Server{Misdirected: func(*lab.Request) bool { return true }},
		acts:   []act{gets("b", 421)},
		path:   []string{"b@1 421"},
		dials:  1,
	},
	{
		name:   "a 421 from b's own connection, which has answered for it before",
		server: lab.Server{Misdirected: func(q *lab.Request) bool { return q.Conn == 1 && !q.First }},
		acts:   []act{gets("b", 200), gets("b", 200), gets("b", 200)},
		path:   []string{"b@1 200", "b@1 421", "b@2 200", "b@2 200"},
		dials:  2,
	},
	{
		name:   "a POST with a body that can be had twice",
		server: serves("a", "c", "d"),
		acts:   []act{gets("a", 200), posts("b", fromMemory)},
		path:   []string{"a@1 200", "b@1 421", "b@2 200"},
		dials:  2,
	},
	{
		name:   "a POST with a short stream, which is kept while it is sent",
		others: "In Chromium the page gets the 421. OkHttp gives up, too.",
		server: serves("a", "c", "d"),
		acts:   []act{gets("a", 200), posts("b", ofKnownLength)},
		path:   []string{"a@1 200", "b@1 421", "b@2 200"},
		dials:  2,
	},
	{
		name:   "a POST with a stream that cannot be had twice is not misdirected at all",
		others: "In Chromium the page gets the 421. OkHttp gives up, too.",
		server: serves("a", "c", "d"),
		acts:   []act{gets("a", 200), posts("b", ofUnknownLength)},
		path:   []string{"a@1 200", "b@2 200"},
		dials:  2,
	},
	{
		name:   "once b has been answered on a's connection, such a stream goes there",
		server: serves("a", "b", "c", "d"),
		acts:   []act{gets("a", 200), gets("b", 200), posts("b", ofUnknownLength)},
		path:   []string{"a@1 200", "b@1 200", "b@1 200"},
		dials:  1,
	},
	{
		name:   "b's own handshake fails after the 421; the next request is not misdirected again",
		others: "Chromium fails after four attempts and is misdirected again, Firefox after three to five.",
		server: serves("a", "c", "d"),
		acts:   []act{gets("a", 200), refuseDials, failsAs421("b"), fails("b"), gets("a", 200)},
		path:   []string{"a@1 200", "b@1 421", "a@1 200"},
		dials:  1,
	},
	{
		name:   "a host that qualifies for two connections gets the same one each time, the older",
		others: "Firefox has closed the older.",
		server: serves("a", "c", "d"),
		acts:   []act{gets("a", 200), gets("b", 200), times(3, gets("c", 200)), gets("d", 200)},
		path:   []string{"a@1 200", "b@1 421", "b@2 200", "3 x c@1 200", "d@1 200"},
		dials:  2,
	},
	{
		name:   "a gateway that says 404 where it means 421",
		others: "None of them has a way to be told.",
		server: lab.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, q := lab.FromRequest(r); first(q.Host()) != first(q.SNI) {
				w.WriteHeader(http.StatusNotFound)
			}
		})},
		setup: func(t *transport.Transport) {
			t.IsMisdirected = func(res *http.Response) bool { return res.StatusCode == http.StatusNotFound }
		},
		acts:  []act{gets("a", 200), gets("b", 200), gets("b", 200)},
		path:  []string{"a@1 200", "b@1 404", "b@2 200", "b@2 200"},
		dials: 2,
	},
	{
		name:   "what one partition has learned, another does not know",
		server: serves("a", "c", "d"),
		acts:   []act{gets("a", 200), gets("b", 200), in("p", "a"), in("p", "b")},
		path:   []string{"a@1 200", "b@1 421", "b@2 200", "a@3 200", "b@3 421", "b@4 200"},
		dials:  4,
	},
}

func TestConformance421(t *testing.T) {
	for _, c := range conformances {
		t.Run(c.name, func(t *testing.T) {
			server := c.server
			server.Names = []string{"*.example.com"}
			bubble(t, map[string]lab.Server{"127.0.0.1": server}, func(r *rig) {
				s := &scene{rig: r}
				r.Host("d.example.com", "127.0.0.1")
				dial := r.tr.Base.DialContext
				r.tr.Base.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
					if s.refusing.Load() {
						return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
					}
					return dial(ctx, network, addr)
				}
				if c.setup != nil {
					c.setup(r.tr)
				}
				for _, act := range c.acts {
					act(s)
				}
				if diff := cmp.Diff(c.path, folded(r.path())); diff != "" {
					t.Errorf("path (-want +got):\n%s", diff)
				}
				r.wantHandshakes(c.dials)
			})
		})
	}
}
