package integration

import (
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

var sharing = []coalesce.Match{coalesce.MatchAddress, coalesce.MatchOrigin, coalesce.MatchCertificate}

// C8: of two hosts alike in certificate and address, the one that the frame
// lists is shared and the other one is not, however lenient Match is.
func TestNode_C8_UnlistedHostIsFenced(t *testing.T) {
	for _, match := range sharing {
		t.Run(match.String(), func(t *testing.T) {
			n := startNode(t, listener{Origins: []string{"a", "b"}})
			n.host(addr1, "a", "b", "c")
			tr := n.matching(t, match)
			n.get(t, tr, "a", 200)
			n.expectOriginSet(t, tr, "a", "b")
			n.expectVerdict(t, tr, "b", coalesce.ReasonShared)
			n.expectVerdict(t, tr, "c", coalesce.ReasonNotInOriginSet)
			n.get(t, tr, "b", 200)
			n.get(t, tr, "c", 200)

			n.expectLog(t,
				"session 1: 127.0.0.1 a",
				"request 1: a 200",
				"request 1: b 200",
				"session 2: 127.0.0.1 c",
				"request 2: c 200",
			)
			expectCounts(t, tr, 2, 1)
		})
	}
}

// C8, O2: what is no origin at the port in use lists nobody, and yet fences
// everybody. The emptiest frame that Node sends has one entry of no length.
func TestNode_O2_FrameThatListsNoHostIsAFence(t *testing.T) {
	tests := []struct {
		name    string
		entries []string
		more    []string // in the set besides a, which the connection is of
	}{
		{"empty", []string{""}, nil},
		{"default port", []string{"https://b.example.test"}, []string{"https://b.example.test"}},
		{"other port", []string{"https://b.example.test:1"}, []string{"https://b.example.test:1"}},
		{"other scheme", []string{"http://b.example.test:PORT"}, nil},
		{"wildcard", []string{"https://*.example.test:PORT"}, nil},
	}
	for _, tt := range tests {
		for _, match := range sharing {
			t.Run(tt.name+"/"+match.String(), func(t *testing.T) {
				n := startNode(t, listener{Origins: tt.entries})
				n.host(addr1, "a", "b")
				tr := n.matching(t, match)
				n.get(t, tr, "a", 200)
				n.expectOriginSet(t, tr, append(tt.more, "a")...)
				n.expectVerdict(t, tr, "b", coalesce.ReasonNotInOriginSet)
				n.get(t, tr, "b", 200)

				n.expectLog(t,
					"session 1: 127.0.0.1 a",
					"request 1: a 200",
					"session 2: 127.0.0.1 b",
					"request 2: b 200",
				)
				expectCounts(t, tr, 2, 0)
			})
		}
	}
}

// C8: a host that shares the connection leaves it when the set arrives without
// it; the connection's own host stays, listed or not.
func TestNode_C8_LateFrameEndsSharing(t *testing.T) {
	for _, match := range sharing {
		t.Run(match.String(), func(t *testing.T) {
			n := startNode(t)
			n.host(addr1, "a", "b", "c")
			tr := n.matching(t, match)
			for _, name := range []string{"a", "b", "c"} {
				n.get(t, tr, name, 200)
			}
			if c := oldest(t, tr); c.OriginSetSeen || len(c.Hosts) != 3 {
				t.Fatalf("before the frame: %+v", c)
			}

			n.list(t, tr, "c")
			n.expectOriginSet(t, tr, "a", "c")
			n.expectVerdict(t, tr, "b", coalesce.ReasonNotInOriginSet)
			for _, name := range []string{"b", "a", "c", "b"} {
				n.get(t, tr, name, 200)
			}
			n.expectLog(t,
				"session 1: 127.0.0.1 a",
				"request 1: a 200",
				"request 1: b 200",
				"request 1: c 200",
				"request 1: a 200",
				"session 2: 127.0.0.1 b",
				"request 2: b 200",
				"request 1: a 200",
				"request 1: c 200",
				"request 2: b 200",
			)
			expectCounts(t, tr, 2, 3)
		})
	}
}

// O3: later frames add to the set, and so admit hosts.
func TestNode_O3_LateFrameAdmitsHosts(t *testing.T) {
	for _, first := range [][]string{nil, {"a"}} {
		t.Run(fmt.Sprintf("%d listed at first", len(first)), func(t *testing.T) {
			n := startNode(t, listener{Origins: first})
			n.host(addr1, "a")
			tr := n.matching(t, coalesce.MatchOrigin)
			n.get(t, tr, "a", 200)
			n.expectUnknownHost(t, tr, "b")
			n.list(t, tr, "b")
			n.expectOriginSet(t, tr, "a", "b")
			n.get(t, tr, "b", 200)
			n.list(t, tr, "c")
			n.expectOriginSet(t, tr, "a", "b", "c")
			n.get(t, tr, "c", 200)
			n.get(t, tr, "b", 200)

			n.expectLog(t,
				"session 1: 127.0.0.1 a",
				"request 1: a 200",
				"request 1: a 200",
				"request 1: b 200",
				"request 1: a 200",
				"request 1: c 200",
				"request 1: b 200",
			)
			expectCounts(t, tr, 1, 3)
			if b, c := n.resolver.LookupsOf(full("b")), n.resolver.LookupsOf(full("c")); b != 1 || c != 0 {
				t.Errorf("b was looked up %d times, c %d times; want 1, 0", b, c)
			}
		})
	}
}

// O3: a request that waits for DNS goes on its way when a frame lists its host.
func TestNode_O3_LateFrameAdmitsWhoWaitsForDNS(t *testing.T) {
	n := startNode(t)
	n.host(addr1, "a", "b")
	tr := n.matching(t, coalesce.MatchOrigin)
	n.get(t, tr, "a", 200)

	n.resolver.SetDelay(time.Hour)
	type answer struct {
		status int
		err    error
	}
	answers := make(chan answer, 1)
	go func() { // ends with the request, which Close ends if nothing else does
		status, _, err := fetch(tr, http.MethodGet, n.url("b"), "")
		answers <- answer{status, err}
	}()
	eventually(t, func() error {
		if n.resolver.LookupsOf(full("b")) == 0 {
			return errors.New("b has not been looked up")
		}
		return nil
	})
	n.list(t, tr, "b")
	eventually(t, func() error {
		select {
		case got := <-answers:
			if got != (answer{status: 200}) {
				t.Fatalf("GET b: %+v", got)
			}
			return nil
		default:
			return errors.New("b waits for DNS")
		}
	})

	n.expectLog(t,
		"session 1: 127.0.0.1 a",
		"request 1: a 200",
		"request 1: a 200",
		"request 1: b 200",
	)
	expectCounts(t, tr, 1, 1)
}

// O4: a frame with more than 128 origins counts as far as it may. It is longer
// than the engine reads at a time.
func TestNode_O4_LongFrame(t *testing.T) {
	names := []string{"a"}
	for i := range 199 {
		names = append(names, fmt.Sprintf("a-rather-long-name-%d", i))
	}
	first, last, beyond := names[1], names[127], names[128]
	n := startNode(t, listener{Origins: names})
	n.host(addr1, "a", beyond)
	tr := n.matching(t, coalesce.MatchOrigin)
	n.get(t, tr, "a", 200)
	n.expectOriginSet(t, tr, names[:128]...)
	for _, name := range []string{first, last, beyond} {
		n.get(t, tr, name, 200)
	}

	n.expectLog(t,
		"session 1: 127.0.0.1 a",
		"request 1: a 200",
		"request 1: "+first+" 200",
		"request 1: "+last+" 200",
		"session 2: 127.0.0.1 "+beyond,
		"request 2: "+beyond+" 200",
	)
	expectCounts(t, tr, 2, 2)
}

// O3, M1, M2: the server denies what its frame says. The host is sent away
// once, and no later frame brings it back.
func TestNode_O3_MisdirectedHostLeavesTheSet(t *testing.T) {
	n := startNode(t, listener{Origins: []string{"a", "b", "c"}, Misdirected: []string{full("b")}})
	n.host(addr1, "a", "c")
	n.host(addr2, "b")
	tr := n.matching(t, coalesce.MatchOrigin)
	n.get(t, tr, "a", 200)
	n.expectOriginSet(t, tr, "a", "b", "c")
	n.get(t, tr, "b", 200)
	n.expectOriginSet(t, tr, "a", "c")
	if got, want := oldest(t, tr).Excluded, []string{full("b")}; !slices.Equal(got, want) {
		t.Errorf("excluded: %q, want %q", got, want)
	}
	n.list(t, tr, "b")
	n.expectVerdict(t, tr, "b", coalesce.ReasonMisdirected)
	for _, name := range []string{"b", "c", "b"} {
		n.get(t, tr, name, 200)
	}

	n.expectLog(t,
		"session 1: 127.0.0.1 a",
		"request 1: a 200",
		"request 1: b 421",
		"session 2: 127.0.0.2 b",
		"request 2: b 200",
		"request 1: a 200",
		"request 2: b 200",
		"request 1: c 200",
		"request 2: b 200",
	)
	if s := tr.Stats(); s.Dials != 2 || s.Misdirected != 1 || s.Retried != 1 {
		t.Errorf("%+v", s)
	}
}

// C8, P2: the frame comes in one TLS record with the SETTINGS that a host
// which has joined the handshake waits for. It is fenced all the same.
func TestNode_C8_FenceHoldsForWhoJoinedTheHandshake(t *testing.T) {
	for _, match := range sharing {
		t.Run(match.String(), func(t *testing.T) {
			n := startNode(t, listener{Origins: []string{"a"}})
			n.host(addr1, "a", "b")
			for range 20 {
				tr := n.matching(t, match)
				answers := make(chan error, 2)
				get := func(name string) { // ends with the request
					_, _, err := fetch(tr, http.MethodGet, n.url(name), "")
					answers <- err
				}
				go get("a")
				for tr.Stats().Dials == 0 { // b is to come before the handshake has ended
					runtime.Gosched()
				}
				go get("b")
				for range 2 {
					if err := <-answers; err != nil {
						t.Error(err)
					}
				}
				expectCounts(t, tr, 2, 0)
			}
		})
	}
}
