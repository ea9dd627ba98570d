package coalesce_test

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

var (
	notBefore = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	notAfter  = time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)
	now       = time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)
)

// leaf returns a certificate that names sans: those written in bytes are
// addresses, "ip:" leads the others.
func leaf(sans ...string) *x509.Certificate {
	cert := &x509.Certificate{
		Raw:       []byte(strings.Join(sans, "\n")),
		Subject:   pkix.Name{CommonName: "cn.example.com"},
		NotBefore: notBefore,
		NotAfter:  notAfter,
	}
	for _, san := range sans {
		if ip, ok := strings.CutPrefix(san, "ip:"); ok {
			cert.IPAddresses = append(cert.IPAddresses, net.ParseIP(ip))
		} else {
			cert.DNSNames = append(cert.DNSNames, san)
		}
	}
	return cert
}

func cover(sans ...string) *coalesce.Coverage { return coalesce.NewCoverage(leaf(sans...)) }

func TestC5_Covers(t *testing.T) {
	for _, tt := range []struct {
		name string
		sans []string
		host string
		want bool
		// x509 accepts what Covers refuses on purpose.
		stricter bool
	}{
		{"exact", []string{"a.example.com"}, "a.example.com", true, false},
		{"one label", []string{"localhost"}, "localhost", true, false},
		{"upper case folded", []string{"A.Example.COM"}, "a.example.com", true, false},
		{"underscore", []string{"a_b.example.com"}, "a_b.example.com", true, false},
		{"A-label", []string{"xn--bcher-kva.example"}, "xn--bcher-kva.example", true, false},
		{"U-label entry", []string{"bücher.example"}, "xn--bcher-kva.example", false, false},
		{"other name", []string{"a.example.com"}, "b.example.com", false, false},
		{"subdomain", []string{"example.com"}, "a.example.com", false, false},
		{"parent", []string{"a.example.com"}, "example.com", false, false},
		{"common name", []string{"a.example.com"}, "cn.example.com", false, false},
		{"no SAN", nil, "cn.example.com", false, false},

		{"wildcard", []string{"*.example.com"}, "a.example.com", true, false},
		{"wildcard upper case", []string{"*.EXAMPLE.com"}, "a.example.com", true, false},
		{"wildcard underscore", []string{"*.example.com"}, "_a.example.com", true, false},
		{"wildcard, two labels", []string{"*.example.com"}, "a.b.example.com", false, false},
		{"wildcard, its parent", []string{"*.example.com"}, "example.com", false, false},
		{"wildcard, itself", []string{"*.example.com"}, "*.example.com", false, true},
		{"wildcard, hyphen first", []string{"*.example.com"}, "-a.example.com", false, false},
		{"wildcard, odd byte", []string{"*.example.com"}, "a!.example.com", false, false},
		{"wildcard of a TLD", []string{"*.com"}, "example.com", false, true},
		{"wildcard with the TLD's dot", []string{"*.com."}, "example.com", false, false},
		{"lone wildcard", []string{"*"}, "com", false, false},
		{"lone wildcard and dot", []string{"*."}, "com", false, false},
		{"partial wildcard", []string{"a*.example.com"}, "ab.example.com", false, false},
		{"partial wildcard, literally", []string{"a*.example.com"}, "a*.example.com", false, true},
		{"inner wildcard", []string{"a.*.example.com"}, "a.b.example.com", false, false},
		{"two wildcards", []string{"*.*.example.com"}, "a.b.example.com", false, false},
		{"wildcard in A-label", []string{"xn--*.example.com"}, "xn--a.example.com", false, false},

		{"empty entry", []string{""}, "a.example.com", false, false},
		{"dot", []string{"."}, "a.example.com", false, false},
		{"final dot in entry", []string{"a.example.com."}, "a.example.com", false, false},
		{"wildcard, final dot", []string{"*.example.com."}, "a.example.com", false, false},
		{"leading dot", []string{".example.com"}, "a.example.com", false, false},
		{"inner empty label", []string{"a..example.com"}, "a.example.com", false, false},
		{"NUL", []string{"a.example.com\x00.evil.example"}, "a.example.com", false, false},
		{"space", []string{"a.example.com "}, "a.example.com", false, false},
		{"odd byte, literally", []string{"a!.example.com"}, "a!.example.com", false, true},
		{"hyphen first, literally", []string{"-a.example.com"}, "-a.example.com", false, true},

		{"IPv4", []string{"ip:192.0.2.9"}, "192.0.2.9", true, false},
		{"IPv4, other", []string{"ip:192.0.2.9"}, "192.0.2.10", false, false},
		{"IPv6", []string{"ip:2001:db8::1"}, "2001:db8::1", true, false},
		{"IPv6, other", []string{"ip:2001:db8::1"}, "2001:db8::2", false, false},
		{"IPv6 zone", []string{"ip:fe80::1"}, "fe80::1%eth0", false, false},
		{"IPv4 as a name", []string{"192.0.2.9"}, "192.0.2.9", false, false},
		{"IPv6 as a name", []string{"2001:db8::1"}, "2001:db8::1", false, false},
		{"IPv4 under a wildcard", []string{"*.0.2.9"}, "192.0.2.9", false, false},
		{"name is not an address", []string{"ip:192.0.2.9"}, "a.example.com", false, false},
		{"short IPv4 as a name", []string{"127.1"}, "127.1", false, true},
		{"octal IPv4 as a name", []string{"0177.0.0.1"}, "0177.0.0.1", false, true},
		{"hexadecimal IPv4 as a name", []string{"0x7f000001"}, "0x7f000001", false, true},
		{"short IPv4 under a wildcard", []string{"*.0.1"}, "127.0.1", false, true},
		{"number that is not last", []string{"127.example"}, "127.example", true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := cover(tt.sans...).Covers(tt.host); got != tt.want {
				t.Errorf("Covers = %v; want %v", got, tt.want)
			}
			if got := leaf(tt.sans...).VerifyHostname(tt.host) == nil; got != (tt.want || tt.stricter) {
				t.Errorf("VerifyHostname accepts = %v; want %v", got, tt.want || tt.stricter)
			}
		})
	}
}

// VerifyHostname drops the dot after it has looked for an IP address, so it
// accepts an address that is spelled as a name.
func TestC5_TrailingDotAddress(t *testing.T) {
	if err := leaf("192.0.2.9").VerifyHostname("192.0.2.9."); err != nil {
		t.Errorf("VerifyHostname: %v; the case is void", err)
	}
	host, err := coalesce.CanonicalHost("192.0.2.9.")
	if err != nil {
		t.Fatal(err)
	}
	if cover("192.0.2.9").Covers(host) {
		t.Error("covered by a name")
	}
	if !cover("ip:192.0.2.9").Covers(host) {
		t.Error("not covered by its iPAddress")
	}
}

func TestC5_Lists(t *testing.T) {
	cert := leaf("B.example.com", "a.example.com", "b.example.com", "*.Example.com", "*.example.com", "*.com", "*.a..b", "*.*.example.com", "*.0.1", "*.a!.example.com", "", "a..b", "192.0.2.1",
		"ip:2001:db8::1", "ip:192.0.2.9", "ip:::ffff:192.0.2.9")
	cert.IPAddresses = append(cert.IPAddresses, net.IP{1, 2, 3}, nil)
	c := coalesce.NewCoverage(cert)
	for _, tt := range []struct {
		name      string
		got, want any
	}{
		{"Names", slices.Sorted(c.Names()), []string{"a.example.com", "b.example.com"}},
		{"Wildcards", slices.Sorted(c.Wildcards()), []string{"example.com"}},
		{"Addrs", c.Addrs(), []netip.Addr{netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("2001:db8::1")}},
		{"SANs", c.SANs(), []string{"a.example.com", "b.example.com", "*.example.com", "192.0.2.9", "2001:db8::1"}},
		{"Fingerprint", c.Fingerprint(), sha256.Sum256(cert.Raw)},
	} {
		if diff := cmp.Diff(tt.want, tt.got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestC4_ValidAt(t *testing.T) {
	c := cover("a.example.com")
	for _, tt := range []struct {
		t    time.Time
		want bool
	}{
		{notBefore.Add(-time.Nanosecond), false},
		{notBefore, true},
		{now, true},
		{notAfter, true},
		{notAfter.Add(time.Nanosecond), false},
	} {
		if got := c.ValidAt(tt.t); got != tt.want {
			t.Errorf("ValidAt(%v) = %v; want %v", tt.t, got, tt.want)
		}
	}
}

func TestCoversAllocatesNothing(t *testing.T) {
	c := cover("a.example.com", "*.example.org", "ip:192.0.2.9")
	for _, host := range []string{"a.example.com", "b.example.org", "192.0.2.9", "2001:db8::1", "c.example.net"} {
		if n := testing.AllocsPerRun(100, func() { c.Covers(host) }); n != 0 {
			t.Errorf("Covers(%q): %v allocations", host, n)
		}
	}
}

// stricter reports whether san is one of the entries by which VerifyHostname
// accepts the canonical host and Covers must not. It is the whole list of
// deliberate differences, in words of its own.
func stricter(san, host string) bool {
	labels := strings.Split(host, ".")
	tld := labels[len(labels)-1]
	switch {
	case strings.HasPrefix(san, "*.") && strings.Count(san, ".") == 1:
		return true // *.com
	case strings.Trim(tld, "0123456789") == "":
		return true // 127.1
	case strings.HasPrefix(tld, "0x") && strings.Trim(tld[2:], "0123456789abcdef") == "":
		return true // 0x7f.1
	}
	// A name that is none, met by a host spelled the same.
	return strings.ToLower(san) == host && (strings.ContainsAny(host, "*!$&'()+,;=~") || strings.HasPrefix(host, "-") || strings.Contains(host, ".-"))
}

// checkCovers compares Covers with VerifyHostname.
func checkCovers(t interface{ Fatalf(string, ...any) }, sans []string, in string) {
	host, err := coalesce.CanonicalHost(in)
	if err != nil {
		return
	}
	got := cover(sans...).Covers(host)
	want := leaf(sans...).VerifyHostname(host) == nil
	if got && !want {
		t.Fatalf("%q covers %q; VerifyHostname does not accept it", sans, host)
	}
	if !want || got {
		return
	}
	for _, san := range sans {
		if leaf(san).VerifyHostname(host) == nil && !stricter(san, host) {
			t.Fatalf("%q does not cover %q; VerifyHostname accepts %q", sans, host, san)
		}
	}
}

func TestC5_CoversAgreesWithVerifyHostname(t *testing.T) {
	label := rapid.SampledFrom([]string{"a", "B", "com", "xn--a", "a_", "-a", "*", "a*", "", "1", "127", "0x7f", "0", "a!", "é", "\x00", " "})
	name := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(label, 1, 4).Draw(t, "labels"), ".")
	})
	san := rapid.OneOf(name, rapid.SampledFrom([]string{
		"*.a.com", "a.com", "b.a.com", "*.com", "192.0.2.9", "::1", "ip:192.0.2.9", "ip:::1", "ip:127.0.0.1", "ip:::ffff:192.0.2.10",
	}))
	host := rapid.OneOf(name, rapid.SampledFrom([]string{
		"b.a.com", "c.a.com", "a.com", "a.com.", "192.0.2.9", "192.0.2.9.", "192.0.2.10", "::1", "::ffff:192.0.2.9", "fe80::1%a", "127.0.0.1", "127.1",
	}))
	rapid.Check(t, func(t *rapid.T) {
		sans := rapid.SliceOfN(san, 0, 4).Draw(t, "sans")
		checkCovers(t, sans, host.Draw(t, "host"))
		if len(sans) > 0 {
			checkCovers(t, sans, strings.Replace(sans[0], "*", "x", 1))
		}
	})
}

func FuzzCovers(f *testing.F) {
	f.Fuzz(func(t *testing.T, sans, host string) {
		checkCovers(t, strings.Split(sans, "\n"), host)
	})
}
