package integration

import (
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/transport"
)

// expectUnknownHost expects a request to fail because DNS does not know the host.
func (n *node) expectUnknownHost(t *testing.T, tr *transport.Transport, name string) {
	t.Helper()
	status, body, err := fetch(tr, http.MethodGet, n.url(name), "")
	if err, ok := errors.AsType[*net.DNSError](err); !ok || !err.IsNotFound || err.Name != full(name) {
		t.Errorf("GET %s: status %d, body %q, error %v; want it not found", name, status, body, err)
	}
}

// expectCounts expects as many dials, and requests on connections of other hosts.
func expectCounts(t *testing.T, tr *transport.Transport, dials, shared uint64) {
	t.Helper()
	if s := tr.Stats(); s.Dials != dials || s.Shared != shared {
		t.Errorf("%d dials, %d shared; want %d, %d", s.Dials, s.Shared, dials, shared)
	}
}

func TestNode_O7_ListedHostWithoutDNS(t *testing.T) {
	n := startNode(t, listener{Origins: []string{"a", "b"}})
	n.host(addr1, "a")
	tr := n.matching(t, coalesce.MatchOrigin)
	n.get(t, tr, "a", 200)
	n.expectOriginSet(t, tr, "a", "b")
	n.get(t, tr, "b", 200)

	n.expectLog(t,
		"session 1: 127.0.0.1 a",
		"request 1: a 200",
		"request 1: b 200",
	)
	expectCounts(t, tr, 1, 1)
	if got := n.resolver.LookupsOf(full("b")); got != 0 {
		t.Errorf("b was looked up %d times", got)
	}
	if got, want := oldest(t, tr).Hosts, []string{full("a"), full("b")}; !slices.Equal(got, want) {
		t.Errorf("the connection has the hosts %q, want %q", got, want)
	}
}

// C9: by default a server's word does not stand in for DNS.
func TestNode_C9_ListedHostWithoutDNSIsRefusedByDefault(t *testing.T) {
	n := startNode(t, listener{Origins: []string{"a", "b"}})
	n.host(addr1, "a")
	tr := n.transport(t)
	n.get(t, tr, "a", 200)
	n.expectOriginSet(t, tr, "a", "b")
	n.expectUnknownHost(t, tr, "b")
	n.get(t, tr, "a", 200)

	n.expectLog(t,
		"session 1: 127.0.0.1 a",
		"request 1: a 200",
		"request 1: a 200",
	)
	expectCounts(t, tr, 1, 0)
}

func TestNode_C9_ListedHostAtAnotherAddress(t *testing.T) {
	tests := []struct {
		match   coalesce.Match
		verdict coalesce.Reason
		dials   uint64
		log     []string
	}{
		{coalesce.MatchOrigin, coalesce.ReasonShared, 1, []string{
			"session 1: 127.0.0.1 a",
			"request 1: a 200",
			"request 1: b 200",
		}},
		{coalesce.MatchAddress, coalesce.ReasonAddressMismatch, 2, []string{
			"session 1: 127.0.0.1 a",
			"request 1: a 200",
			"session 2: 127.0.0.2 b",
			"request 2: b 200",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.match.String(), func(t *testing.T) {
			n := startNode(t, listener{Origins: []string{"a", "b"}})
			n.host(addr1, "a")
			n.host(addr2, "b")
			tr := n.matching(t, tt.match)
			n.get(t, tr, "a", 200)
			n.expectOriginSet(t, tr, "a", "b")
			n.expectVerdict(t, tr, "b", tt.verdict)
			n.get(t, tr, "b", 200)

			n.expectLog(t, tt.log...)
			expectCounts(t, tr, tt.dials, 2-tt.dials)
		})
	}
}

// C5: a server may list what it likes; the certificate decides.
func TestNode_C5_ListedHostThatIsNotCovered(t *testing.T) {
	for _, match := range []coalesce.Match{coalesce.MatchOrigin, coalesce.MatchCertificate} {
		t.Run(match.String(), func(t *testing.T) {
			n := startNode(t,
				listener{Names: []string{full("a"), full("b")}, Origins: []string{"a", "b", "x", "y"}},
				listener{Names: []string{full("a"), full("x")}},
			)
			n.host(addr1, "a", "b")
			n.host(addr2, "x")
			tr := n.matching(t, match)
			n.get(t, tr, "a", 200)
			n.expectOriginSet(t, tr, "a", "b", "x", "y")
			n.get(t, tr, "b", 200)
			n.expectVerdict(t, tr, "x", coalesce.ReasonNotCovered)
			n.get(t, tr, "x", 200)
			n.expectUnknownHost(t, tr, "y")

			n.expectLog(t,
				"session 1: 127.0.0.1 a",
				"request 1: a 200",
				"request 1: b 200",
				"session 2: 127.0.0.2 x",
				"request 2: x 200",
			)
			expectCounts(t, tr, 2, 1)
		})
	}
}

// P2: hosts that are listed wait for the one handshake.
func TestNode_P2_FirstRequestsOfListedHostsShareOneHandshake(t *testing.T) {
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	n := startNode(t, listener{Origins: names})
	n.host(addr1, names...)
	tr := n.transport(t)
	n.burst(t, tr, 40, names)

	n.expectOriginSet(t, tr, names...)
	expectCounts(t, tr, 1, 35)
	want := []string{"session 1: 127.0.0.1 " + short(oldest(t, tr).Host)}
	for i := range 40 {
		want = append(want, "request 1: "+names[i%len(names)]+" 200")
	}
	slices.Sort(want)
	eventually(t, func() error {
		if diff := cmp.Diff(want, slices.Sorted(slices.Values(n.log()))); diff != "" {
			return fmt.Errorf("node's log, sorted (-want +got):\n%s", diff)
		}
		return nil
	})
}

// O1: neither the client nor the engine below it says a word of the frames.
// net/http has the standard logger note each.
func TestNode_O1_NothingIsLogged(t *testing.T) {
	n := startNode(t, listener{Origins: []string{"a", "b"}})
	n.host(addr1, "a", "b")
	tr := n.transport(t)

	var said lockedBuffer
	defer log.SetOutput(log.Writer())
	log.SetOutput(&said)
	n.get(t, tr, "a", 200)
	n.list(t, tr, "c", "d")
	n.list(t, tr, "")
	n.get(t, tr, "b", 200)
	n.expectOriginSet(t, tr, "a", "b", "c", "d")
	_ = tr.Close()
	if text := said.String(); text != "" {
		t.Errorf("logged:\n%s", text)
	}
}

// O6: the second connection's set holds all of the first's, which is given up.
func TestNode_O6_ConnectionWithTheSmallerSetIsGivenUp(t *testing.T) {
	for _, match := range sharing {
		t.Run(match.String(), func(t *testing.T) {
			n := startNode(t, listener{Origins: []string{"a", "b"}})
			n.host(addr1, "a", "b", "c")
			tr := n.matching(t, match)
			for _, name := range []string{"a", "b", "c"} {
				n.get(t, tr, name, 200)
			}
			eventually(t, func() error {
				if conns := tr.Conns(); len(conns) != 1 {
					return fmt.Errorf("%+v", conns)
				}
				return nil
			})
			for _, name := range []string{"a", "b", "c"} {
				n.get(t, tr, name, 200)
			}
			n.expectLog(t,
				"session 1: 127.0.0.1 a",
				"request 1: a 200",
				"request 1: b 200",
				"session 2: 127.0.0.1 c",
				"request 2: c 200",
				"request 2: a 200",
				"request 2: b 200",
				"request 2: c 200",
			)
		})
	}
}
