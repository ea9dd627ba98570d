package coalesce_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

func TestC5_CanonicalHost(t *testing.T) {
	label63 := strings.Repeat("a", 63)
	name253 := label63 + "." + label63 + "." + label63 + "." + strings.Repeat("b", 61)
	for _, tt := range []struct{ in, want string }{
		{"example.com", "example.com"},
		{"EXAMPLE.Com", "example.com"},
		{"example.com.", "example.com"},
		{"localhost", "localhost"},
		{"a_b.example.com", "a_b.example.com"},
		{"_dmarc.example.com", "_dmarc.example.com"},
		{"xn--bcher-kva.example", "xn--bcher-kva.example"},
		{"XN--BCHER-KVA.example", "xn--bcher-kva.example"},
		{"bücher.example", "xn--bcher-kva.example"},
		{"BÜCHER.example", "xn--bcher-kva.example"},
		{"bücher.example.", "xn--bcher-kva.example"},
		{"bücher。example", "xn--bcher-kva.example"}, // ideographic full stop
		{"-a.example.com", "-a.example.com"},
		{"a!$&'()*+,;=~.example", "a!$&'()*+,;=~.example"}, // RFC 3986 reg-name
		{name253, name253},
		{name253 + ".", name253},
		{"192.0.2.9", "192.0.2.9"},
		{"192.0.2.9.", "192.0.2.9"},
		{"１９２.0.2.9", "192.0.2.9"}, // full-width digits
		{"127.1", "127.1"},         // not an address in Go
		{"2001:DB8::1", "2001:db8::1"},
		{"2001:db8:0:0:0:0:0:1", "2001:db8::1"},
		{"::ffff:192.0.2.9", "192.0.2.9"},
		{"::ffff:c000:209", "192.0.2.9"},
		{"fe80::1%eth0", "fe80::1%eth0"},
		{"FE80::1%Eth0", "fe80::1%Eth0"},
		{"::ffff:192.0.2.9%eth0", "::ffff:192.0.2.9%eth0"},
	} {
		got, err := coalesce.CanonicalHost(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("CanonicalHost(%q) = %q, %v; want %q", tt.in, got, err, tt.want)
			continue
		}
		if again, err := coalesce.CanonicalHost(got); err != nil || again != got {
			t.Errorf("CanonicalHost(%q) = %q, %v; want it unchanged", got, again, err)
		}
	}

	for _, in := range []string{
		"", ".", "..", "a..b", ".a", "a..",
		name253 + "b", strings.Repeat("a", 1<<16), "fe80::1%" + strings.Repeat("a", 253),
		"a\x00.example", "a b", " a", "a\n", "a\t", "a\x7f", "a/b", "a@b", "a?b", "a#b", `a\b`, "a%b", "a%00b",
		"a:443", "a:", ":", ":443", "192.0.2.9:443", "[::1]", "[::1]:443", "[a]", "<a>", `"a"`, "a^b", "a|b", "a{b}", "a`b",
		"::1::", "1:2:3", "2001:db8::g", "fe80::1%", "fe80::1%a/b", "fe80::1%a b", "fe80::1%a\x00", "fe80::1%é",
		"\xff.example", "bücher_.example", "a／b.example", "\u00ad",
	} {
		if got, err := coalesce.CanonicalHost(in); err == nil {
			t.Errorf("CanonicalHost(%.40q) = %q; want an error", in, got)
		}
	}
}

func TestCanonicalHostErrorHidesHost(t *testing.T) {
	_, err := coalesce.CanonicalHost("user:secret@example.com")
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v; want one that does not repeat the input", err)
	}
}

func TestC5_WildcardParent(t *testing.T) {
	for _, tt := range []struct {
		host, parent string
		ok           bool
	}{
		{"a.example.com", "example.com", true},
		{"a.b.example.com", "b.example.com", true},
		{"a_b.example.com", "example.com", true},
		{"xn--bcher-kva.example.com", "example.com", true},
		{"1.example.com", "example.com", true},
		{"example.com", "", false}, // *.com
		{"com", "", false},
		{"", "", false},
		{"*.example.com", "", false},
		{"-a.example.com", "", false},
		{"a!.example.com", "", false},
		{"192.0.2.9", "", false},
		{"a.b.127.1", "", false},
		{"a.b.0x7f", "", false},
		{"a.b.0x", "", false},
		{"a.b.0xg", "b.0xg", true},
		{"2001:db8::1", "", false},
		{"::ffff:192.0.2.9%a.b.c", "", false},
		{"fe80::1%a.b.c", "", false},
	} {
		if parent, ok := coalesce.WildcardParent(tt.host); parent != tt.parent || ok != tt.ok {
			t.Errorf("WildcardParent(%q) = %q, %v; want %q, %v", tt.host, parent, ok, tt.parent, tt.ok)
		}
	}
}

func TestCanonicalHostAllocatesNothing(t *testing.T) {
	for _, host := range []string{"www.example.com", "www.example.com.", "192.0.2.9", "2001:db8::1"} {
		if n := testing.AllocsPerRun(100, func() { coalesce.CanonicalHost(host) }); n != 0 {
			t.Errorf("CanonicalHost(%q): %v allocations", host, n)
		}
	}
}

// net/http would spend seconds on this host.
func TestCanonicalHostTakesNoTimeForLongNames(t *testing.T) {
	var b strings.Builder
	for i := range 16000 {
		b.WriteRune(rune(0x4e00 + i*7919%20000))
	}
	start := time.Now()
	if host, err := coalesce.CanonicalHost(b.String()); err == nil {
		t.Errorf("%.40q; want an error", host)
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("took %v", d)
	}
}

func FuzzCanonicalHost(f *testing.F) {
	f.Fuzz(func(t *testing.T, in string) {
		host, err := coalesce.CanonicalHost(in)
		if err != nil {
			if host != "" {
				t.Fatalf("%q: %q beside an error", in, host)
			}
			return
		}
		if again, err := coalesce.CanonicalHost(host); err != nil || again != host {
			t.Fatalf("%q: %q becomes %q, %v", in, host, again, err)
		}
		if len(host) == 0 || len(host) > 253 {
			t.Fatalf("%q: length %d", in, len(host))
		}
		addr, addrErr := netip.ParseAddr(host)
		for i := range len(host) {
			c := host[i]
			if c <= ' ' || c >= 0x7f || strings.IndexByte(`/\@?#[]<>"`, c) >= 0 {
				t.Fatalf("%q: %q in %q", in, c, host)
			}
			if addrErr != nil && (c == ':' || c == '%' || 'A' <= c && c <= 'Z') {
				t.Fatalf("%q: %q in the name %q", in, c, host)
			}
		}
		if addrErr == nil && addr.String() != host {
			t.Fatalf("%q: %q is not canonical, %q is", in, host, addr)
		}
	})
}
