package coalesce_test

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

func TestO2_ParseOrigin(t *testing.T) {
	for _, tt := range []struct {
		in   string
		host string
		port int
	}{
		{"https://example.com", "example.com", 443},
		{"https://example.com:443", "example.com", 443},
		{"https://example.com:8443", "example.com", 8443},
		{"https://EXAMPLE.com", "example.com", 443},
		{"https://a_b.example.com:1", "a_b.example.com", 1},
		{"https://example.com:65535", "example.com", 65535},
		{"https://192.0.2.9", "192.0.2.9", 443},
		{"https://[2001:db8::1]", "2001:db8::1", 443},
		{"https://[2001:DB8::1]:8443", "2001:db8::1", 8443},
	} {
		host, port, ok := coalesce.ParseOrigin(tt.in)
		if !ok || host != tt.host || port != tt.port {
			t.Errorf("ParseOrigin(%q) = %q, %d, %v; want %q, %d", tt.in, host, port, ok, tt.host, tt.port)
		}
	}
	for _, in := range []string{
		"", "null", "https:", "https://", "https:///", "https://:443", "https://.", "example.com", "//example.com", " https://example.com",
		"http://example.com", "HTTPS://example.com", "Https://example.com", "https:/example.com", "https:\\\\example.com", "wss://example.com",
		"https://example.com/", "https://example.com/a", "https://example.com?", "https://example.com#", "https://example.com ", "https://example.com\x00",
		"https://example.com:443/", "https://user@example.com", "https://user:1@example.com", "https://bank.example@evil.example",
		"https://*.example.com", "https://*", "https://a*.example.com", "https://bücher.example", "https://a..example.com", "https://a%2eexample.com",
		"https://example.com:", "https://example.com:0", "https://example.com:0443", "https://example.com:65536", "https://example.com:99999999999999999999",
		"https://example.com:+443", "https://example.com:-1", "https://example.com:https", "https://example.com:443:443", "https://example.com:4a",
		"https://2001:db8::1", "https://[2001:db8::1", "https://2001:db8::1]", "https://[]", "https://[::1]a", "https://[::1]443", "https://[fe80::1%25eth0]", "https://[fe80::1%eth0]",
		"https://[192.0.2.9]", "https://[::ffff:192.0.2.9]", "https://[example.com]", "https://127.1", "https://0x7f.1", "https://-a.example.com",
		"https://a.example,https://b.example", "https://" + strings.Repeat("a", 254),
	} {
		if host, port, ok := coalesce.ParseOrigin(in); ok || host != "" || port != 0 {
			t.Errorf("ParseOrigin(%q) = %q, %d, %v; want nothing", in, host, port, ok)
		}
	}
}

func TestO3_OriginSet(t *testing.T) {
	var s coalesce.OriginSet
	s.Init("own.example", 443)
	if s.Seen() || s.Contains("own.example", 443) || len(s.List()) != 0 {
		t.Error("not empty before the first frame")
	}
	s.Remove("own.example", 443)

	added := s.Add([]string{"https://b.example", "junk", "https://B.example", "https://a.example", "https://c.example:8443", "https://own.example"}, 0)
	if diff := cmp.Diff([]string{"b.example", "a.example"}, added); diff != "" {
		t.Errorf("added (-want +got):\n%s", diff)
	}
	if !s.Seen() || !s.Contains("own.example", 443) {
		t.Error("the first frame does not put the own origin in")
	}
	if s.Contains("c.example", 443) || !s.Contains("c.example", 8443) || s.Contains("b.example", 8443) {
		t.Error("ports are not told apart")
	}

	if added := s.Add([]string{"https://b.example", "https://[2001:db8::1]", "https://[2001:db8::2]:8443"}, 0); len(added) != 1 || added[0] != "2001:db8::1" {
		t.Errorf("second frame added %q", added)
	}
	want := []string{
		"https://[2001:db8::1]", "https://[2001:db8::2]:8443", "https://a.example", "https://b.example", "https://c.example:8443", "https://own.example",
	}
	if diff := cmp.Diff(want, s.List()); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}

	s.Remove("b.example", 8443)
	s.Remove("b.example", 443)
	if s.Contains("b.example", 443) || !s.Contains("a.example", 443) {
		t.Error("Remove took not b.example, or more")
	}
	if added := s.Add([]string{"https://b.example"}, 0); len(added) != 1 {
		t.Errorf("listed again: added %q", added)
	}
	s.Remove("own.example", 443)
	s.Add(nil, 0)
	if s.Contains("own.example", 443) {
		t.Error("a later frame puts the own origin back in")
	}
	if s.Dropped() != 0 {
		t.Errorf("Dropped = %d", s.Dropped())
	}
}

func TestO3_EmptyFrame(t *testing.T) {
	var s coalesce.OriginSet
	s.Init("2001:db8::1", 8443)
	if added := s.Add(nil, 0); added != nil {
		t.Errorf("added %q", added)
	}
	if diff := cmp.Diff([]string{"https://[2001:db8::1]:8443"}, s.List()); !s.Seen() || diff != "" {
		t.Errorf("Seen = %v, List (-want +got):\n%s", s.Seen(), diff)
	}
}

func TestO4_Count(t *testing.T) {
	var s coalesce.OriginSet
	s.Init("own.example", 443)
	for i := range 200 {
		s.Add([]string{fmt.Sprintf("https://h%d.example", i)}, 0)
	}
	if n := len(s.List()); n != 128 || s.Dropped() != 200-127 {
		t.Errorf("%d origins, %d dropped; want 128 with the own one, 73", n, s.Dropped())
	}
	if !s.Contains("own.example", 443) || !s.Contains("h126.example", 443) || s.Contains("h127.example", 443) {
		t.Error("not the first ones are kept")
	}
	s.Add([]string{"https://h5.example", "https://own.example", "no origin"}, 0)
	if s.Dropped() != 73 {
		t.Error("an entry that adds nothing counts as dropped")
	}
	s.Remove("h5.example", 443)
	if added := s.Add([]string{"https://late.example", "https://later.example"}, 0); len(added) != 1 || added[0] != "late.example" {
		t.Errorf("with room for one more, added %q", added)
	}
}

// A server may repeat its whole set with every change. What is new is not lost,
// however much was sent by then.
func TestO4_RepeatingCostsNoRoom(t *testing.T) {
	var s coalesce.OriginSet
	s.Init("own.example", 443)
	frame := []string{strings.Repeat("a", 16<<10)}
	for i := range 126 {
		frame = append(frame, fmt.Sprintf("https://h%d.example", i))
	}
	for range 100 {
		s.Add(frame, 0)
	}
	if added := s.Add([]string{"https://late.example"}, 0); len(added) != 1 || s.Dropped() != 0 {
		t.Errorf("added %q, %d dropped; want what is new, and none", added, s.Dropped())
	}
}

func TestO4_DroppedIsTheTotal(t *testing.T) {
	var s coalesce.OriginSet
	s.Init("own.example", 443)
	s.Add(nil, 3)
	if !s.Seen() || s.Dropped() != 3 {
		t.Errorf("Seen = %v, Dropped = %d after a frame that was left out whole; want true, 3", s.Seen(), s.Dropped())
	}
	for i := range 130 {
		s.Add([]string{fmt.Sprintf("https://h%d.example", i)}, 0)
	}
	s.Add([]string{"https://late.example"}, 4)
	if want := 3 + 130 - 127 + 1 + 4; s.Dropped() != want {
		t.Errorf("Dropped = %d; want %d", s.Dropped(), want)
	}
}

func TestO6_ProperSubsetOf(t *testing.T) {
	unseen := func(host string) *coalesce.OriginSet {
		s := new(coalesce.OriginSet)
		s.Init(host, 443)
		return s
	}
	set := func(host string, entries ...string) *coalesce.OriginSet {
		s := unseen(host)
		s.Add(entries, 0)
		return s
	}
	const a, b, c = "https://a.example", "https://b.example", "https://c.example"
	for _, tt := range []struct {
		name string
		s, t *coalesce.OriginSet
		want bool
	}{
		{"subset", set("a.example"), set("b.example", a), true},
		{"larger subset", set("a.example", b), set("c.example", b, a), true},
		{"itself", set("a.example", b), set("a.example", b), false},
		{"equal", set("a.example", b), set("b.example", a), false},
		{"superset", set("b.example", a, c), set("a.example"), false},
		{"disjoint", set("a.example"), set("b.example", c), false},
		{"overlap", set("a.example", b), set("b.example", c, "https://d.example"), false},
		{"another port", set("a.example"), set("b.example", a+":8443"), false},
		{"no frame", unseen("a.example"), set("b.example", a), false},
		{"no frame on the other", set("a.example"), unseen("a.example"), false},
		{"no frames", unseen("a.example"), unseen("a.example"), false},
	} {
		if got := tt.s.ProperSubsetOf(tt.t); got != tt.want {
			t.Errorf("%s: %v; want %v", tt.name, got, tt.want)
		}
	}
	s, u := set("a.example", b), set("c.example", a, b)
	if n := testing.AllocsPerRun(100, func() { s.ProperSubsetOf(u) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	emptied := set("a.example")
	emptied.Remove("a.example", 443)
	if !emptied.ProperSubsetOf(set("b.example")) {
		t.Error("a set that a 421 has emptied is a subset of any")
	}
}

func FuzzParseOrigin(f *testing.F) {
	f.Fuzz(func(t *testing.T, in string) {
		host, port, ok := coalesce.ParseOrigin(in)
		if !ok {
			if host != "" || port != 0 {
				t.Fatalf("%q: %q, %d beside !ok", in, host, port)
			}
			return
		}
		if port < 1 || port > 65535 {
			t.Fatalf("%q: port %d", in, port)
		}
		if canonical, err := coalesce.CanonicalHost(host); err != nil || canonical != host {
			t.Fatalf("%q: host %q is not canonical: %q, %v", in, host, canonical, err)
		}
		// Nothing but the host, the port and the case of the host may differ
		// from the serialization of what was understood.
		text := "https://" + host
		if strings.Contains(host, ":") {
			text = "https://[" + host + "]"
		}
		withPort := "https://" + net.JoinHostPort(host, strconv.Itoa(port))
		if lower := strings.ToLower(in); lower != withPort && (lower != text || port != 443) {
			if _, err := netip.ParseAddr(host); err != nil && lower != text+"." && !strings.HasPrefix(lower, text+".:") {
				t.Fatalf("%q is not %q", in, withPort)
			}
		}
		var s coalesce.OriginSet
		s.Init("own.example", port)
		s.Add([]string{in}, 0)
		if !s.Contains(host, port) {
			t.Fatalf("%q: not in the set", in)
		}
		for _, o := range s.List() {
			if h, p, ok := coalesce.ParseOrigin(o); !ok || !s.Contains(h, p) {
				t.Fatalf("%q: List has %q", in, o)
			}
		}
	})
}
