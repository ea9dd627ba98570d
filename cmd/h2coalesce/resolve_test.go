package main

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

func TestParseResolve(t *testing.T) {
	for _, test := range []struct {
		entries []string
		want    map[string]string // host: ports and addresses
	}{
		{nil, map[string]string{}},
		{[]string{"a.example:443:192.0.2.1"}, map[string]string{"a.example": "[443] [192.0.2.1]"}},
		{[]string{"+A.Example.:443:192.0.2.1,192.0.2.2"}, map[string]string{"a.example": "[443] [192.0.2.1 192.0.2.2]"}},
		{[]string{"a.example:443:[2001:db8::1],2001:db8::2"}, map[string]string{"a.example": "[443] [2001:db8::1 2001:db8::2]"}},
		{[]string{"a.example:443:::ffff:192.0.2.1"}, map[string]string{"a.example": "[443] [192.0.2.1]"}},
		{[]string{"*:443:192.0.2.1", "a:443:192.0.2.2"}, map[string]string{"*": "[443] [192.0.2.1]", "a": "[443] [192.0.2.2]"}},
		{[]string{"bücher.example:443:192.0.2.1"}, map[string]string{"xn--bcher-kva.example": "[443] [192.0.2.1]"}},
		// As in curl, the last one counts.
		{[]string{"a:443:192.0.2.1", "a:443:192.0.2.2"}, map[string]string{"a": "[443] [192.0.2.2]"}},
		{[]string{"a:8443:192.0.2.2,192.0.2.1", "a:443:192.0.2.1,192.0.2.2"}, map[string]string{"a": "[443 8443] [192.0.2.1 192.0.2.2]"}},
	} {
		o, err := parseResolve(test.entries)
		if err != nil {
			t.Errorf("%q: %v", test.entries, err)
			continue
		}
		got := map[string]string{}
		for host, e := range o.hosts {
			got[host] = fmt.Sprint(e.ports) + " " + fmt.Sprint(e.addrs)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.entries, diff)
		}
	}
}

func TestParseResolveRejects(t *testing.T) {
	for _, test := range []struct {
		entries []string
		want    string
	}{
		{[]string{""}, "want HOST:PORT:ADDR"},
		{[]string{"a"}, "want HOST:PORT:ADDR"},
		{[]string{"a:443"}, "want HOST:PORT:ADDR"},
		{[]string{":443:192.0.2.1"}, "host is empty"},
		{[]string{"a b:443:192.0.2.1"}, "character"},
		{[]string{"a:0:192.0.2.1"}, `"0" is no port`},
		{[]string{"a:65536:192.0.2.1"}, `"65536" is no port`},
		{[]string{"a:https:192.0.2.1"}, `"https" is no port`},
		{[]string{"a:443:"}, `"" is no IP address`},
		{[]string{"a:443:b"}, `"b" is no IP address`},
		{[]string{"a:443:[192.0.2.1]"}, `"[192.0.2.1]" is no IP address`},
		{[]string{"a:443:[::1"}, `"[::1" is no IP address`},
		{[]string{"a:443:192.0.2.1,"}, `"" is no IP address`},
		{[]string{"-a:443"}, "no entries to remove"},
		{[]string{"192.0.2.1:443:192.0.2.2"}, "the host is an address"},
		{[]string{"a:8443:192.0.2.2", "a:443:192.0.2.1"}, "a different addresses for ports 443 and 8443"},
	} {
		if _, err := parseResolve(test.entries); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v", test.entries, err)
		}
	}
}

func TestResolveCheck(t *testing.T) {
	o, err := parseResolve([]string{"a.example:443:192.0.2.1", "*:8443:192.0.2.2"})
	if err != nil {
		t.Fatal(err)
	}
	for raw, want := range map[string]string{
		"https://a.example/":        "",
		"https://A.example.:443/":   "",
		"https://b.example:8443/":   "",
		"https://192.0.2.9/":        "",
		"https://[2001:db8::1]/":    "",
		"http://a.example/":         "",
		"http://a.example:443/":     "no effect on plain http",
		"https://b.example/":        "gives b.example addresses for port 8443, but not for port 443,",
		"https://a.example:8443/":   "gives a.example addresses for port 443, but not for port 8443,",
		"http://u:p@b.example:8443": "http://xxxxx@b.example:8443",
	} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		err = o.check([]*url.URL{u})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

func TestLookupNetIP(t *testing.T) {
	var next lab.Resolver
	next.Set("c.example", netip.MustParseAddr("192.0.2.3"))
	o, err := parseResolve([]string{"a.example:443:192.0.2.1"})
	if err != nil {
		t.Fatal(err)
	}
	o.next = &next
	for host, want := range map[string]string{"a.example": "[192.0.2.1]", "c.example": "[192.0.2.3]", "d.example": "[]"} {
		addrs, err := o.LookupNetIP(context.Background(), "ip", host)
		if fmt.Sprint(addrs) != want || (err != nil) != (want == "[]") {
			t.Errorf("%s: %v, %v", host, addrs, err)
		}
	}
}
