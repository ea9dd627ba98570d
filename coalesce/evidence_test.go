package coalesce_test

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

func TestC9_CanonicalAddr(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"192.0.2.9", "192.0.2.9"},
		{"2001:db8::9", "2001:db8::9"},
		{"::ffff:192.0.2.9", "192.0.2.9"},
		{"::192.0.2.9", "::c000:209"}, // IPv4-compatible is not IPv4-mapped
		{"2001:db8::9%eth0", "2001:db8::9"},
		{"fd00::9%eth0", "fd00::9"}, // RFC 4193 §3.3: of global scope
		{"fe80::9%eth0", "fe80::9%eth0"},
		{"febf::9%eth0", "febf::9%eth0"},
		{"fec0::9%eth0", "fec0::9%eth0"},
		{"feff::9%eth0", "feff::9%eth0"},
		{"ff02::9%eth0", "ff02::9%eth0"},
		{"::1%lo", "::1%lo"},
		{"::ffff:192.0.2.9%eth0", "::ffff:192.0.2.9%eth0"},
	} {
		if got := coalesce.CanonicalAddr(netip.MustParseAddr(tt.in)); got.String() != tt.want {
			t.Errorf("CanonicalAddr(%s) = %s; want %s", tt.in, got, tt.want)
		}
	}
	if got := coalesce.CanonicalAddr(netip.Addr{}); got.IsValid() {
		t.Errorf("CanonicalAddr of no address = %v", got)
	}
}

func TestC9_CanonicalAddrIsCanonical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var a netip.Addr
		b := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "bytes")
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			a = netip.AddrFrom4([4]byte(b[:4]))
		case 1:
			a = netip.AddrFrom16([16]byte(b))
		case 2:
			a = netip.AddrFrom16([16]byte(b)).WithZone("eth0")
		case 3:
			copy(b, []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff})
			a = netip.AddrFrom16([16]byte(b))
		}
		c := coalesce.CanonicalAddr(a)
		if coalesce.CanonicalAddr(c) != c {
			t.Fatalf("CanonicalAddr(%v) = %v, of which it is %v", a, c, coalesce.CanonicalAddr(c))
		}
		if a.Unmap().WithZone("") != c.WithZone("") && !a.Is4In6() {
			t.Fatalf("CanonicalAddr(%v) = %v is another address", a, c)
		}
	})
}
