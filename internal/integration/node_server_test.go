package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/pool"
	"github.com/h2coalesce/h2coalesce/transport"
)

// node is a running Node with testdata/origin.mjs, whose HTTP/2 server sends
// ORIGIN frames. It sends the first right behind its SETTINGS, before it has
// read anything, and a later one before the answer to the request that asks
// for it: so a frame has arrived when the answer has.
type node struct{ *server }

// listener is what the server does at one address.
type listener struct {
	// Names are what the certificate covers. They must cover a.example.test;
	// none means *.example.test.
	Names []string

	// Origins are the first ORIGIN frame, see node.origin. With none, no frame
	// is sent: Node sends no empty ones.
	Origins []string

	// Misdirected are the hosts that are answered 421 unless SNI names them.
	Misdirected []string
}

// startNode starts a server at addr1 and addr2, where it does what the listeners
// say, in that order.
func startNode(t *testing.T, listeners ...listener) *node {
	t.Helper()
	path := tool(t, "node")
	n := &node{newServer(t)}
	n.start(t, func() { n.configure(t, listeners) }, path, "testdata/origin.mjs", n.file("config.json"))
	return n
}

func (n *node) configure(t *testing.T, listeners []listener) {
	t.Helper()
	type config struct {
		Addr        string   `json:"addr"`
		Cert        string   `json:"cert"`
		Key         string   `json:"key"`
		Origins     []string `json:"origins"`
		Misdirected []string `json:"misdirected"`
	}
	var configs []config
	for i, addr := range []string{addr1, addr2} {
		var l listener
		if i < len(listeners) {
			l = listeners[i]
		}
		if len(l.Names) == 0 {
			l.Names = []string{full("*")}
		}
		cert, key := fmt.Sprintf("cert%d.pem", i), fmt.Sprintf("key%d.pem", i)
		n.issue(t, cert, key, l.Names...)
		configs = append(configs, config{addr, n.file(cert), n.file(key), n.origins(l.Origins), append([]string{}, l.Misdirected...)})
	}
	text, err := json.Marshal(map[string]any{"port": n.port, "listeners": configs})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.file("config.json"), text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// origins turns names under example.test into their origins at the server's
// port. What is empty or an origin already stays as it is, but for PORT.
func (n *node) origins(names []string) []string {
	origins := []string{} // not nil, which would be null in JSON
	for _, name := range names {
		if name != "" && !strings.Contains(name, "://") {
			name = "https://" + full(name) + ":PORT"
		}
		origins = append(origins, strings.ReplaceAll(name, "PORT", strconv.Itoa(n.port)))
	}
	return origins
}

// list has the server send an ORIGIN frame on the connection that a request
// for a takes.
func (n *node) list(t *testing.T, rt http.RoundTripper, names ...string) {
	t.Helper()
	query := url.Values{"list": n.origins(names)}.Encode()
	status, body, err := fetch(rt, http.MethodGet, n.url("a")+"origin?"+query, "")
	if err != nil || status != 200 {
		t.Fatalf("GET /origin?%s: status %d, body %q, error %v", query, status, body, err)
	}
}

// log returns what the server has logged so far. Hosts are without the domain
// and the port.
//
//	session NUMBER: ADDRESS SNI
//	request SESSION: HOST STATUS
func (n *node) log() []string {
	var lines []string
	shorten := strings.NewReplacer(domain+":"+strconv.Itoa(n.port), "", domain, "")
	for line := range strings.Lines(n.process.output.String()) {
		line, whole := strings.CutSuffix(line, "\n")
		if whole && (strings.HasPrefix(line, "session ") || strings.HasPrefix(line, "request ")) {
			lines = append(lines, shorten.Replace(line))
		}
	}
	return lines
}

// expectLog expects these to be all lines of the log. The last may be late.
func (n *node) expectLog(t *testing.T, want ...string) {
	t.Helper()
	eventually(t, func() error {
		got := n.log()
		diff := cmp.Diff(want, got)
		if diff == "" {
			return nil
		}
		err := fmt.Errorf("node's log (-want +got):\n%s", diff)
		if len(got) >= len(want) || !slices.Equal(got, want[:len(got)]) {
			t.Fatal(err)
		}
		return err
	})
}

// expectOriginSet waits until ORIGIN frames have given the oldest connection
// this origin set. The names are as in listener.Origins.
func (n *node) expectOriginSet(t *testing.T, tr *transport.Transport, names ...string) {
	t.Helper()
	want := n.origins(names)
	slices.Sort(want)
	eventually(t, func() error {
		c := oldest(t, tr)
		if diff := cmp.Diff(want, c.OriginSet); diff != "" || !c.OriginSetSeen {
			return fmt.Errorf("origin set (-want +got), seen: %v\n%s", c.OriginSetSeen, diff)
		}
		return nil
	})
}

func oldest(t *testing.T, tr *transport.Transport) pool.ConnInfo {
	t.Helper()
	conns := tr.Conns()
	if len(conns) == 0 {
		t.Fatal("there is no connection")
	}
	return conns[0]
}

// expectVerdict expects Explain to say this of a host and the oldest connection.
func (n *node) expectVerdict(t *testing.T, tr *transport.Transport, name string, want coalesce.Reason) {
	t.Helper()
	d, err := tr.Explain(t.Context(), n.url(name))
	if err != nil {
		t.Fatal(err)
	}
	verdict := coalesce.Verdict{Conn: oldest(t, tr).ID, ConnHost: full("a"), Reason: want}
	if len(d.Considered) == 0 || d.Considered[0] != verdict || d.Shared != (want == coalesce.ReasonShared) {
		t.Errorf("explained for %s: %+v; want %+v", name, d, verdict)
	}
}
