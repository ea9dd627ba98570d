package lab_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

func TestResolver(t *testing.T) {
	var r lab.Resolver
	boom := errors.New("boom")
	r.Set("A.test", netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"))
	r.SetError("bad.test", boom)
	for _, tc := range []struct{ network, host, want string }{
		{"ip", "a.test", "[192.0.2.1 2001:db8::1]"},
		{"ip4", "a.TEST.", "[192.0.2.1]"},
		{"ip6", "a.test", "[2001:db8::1]"},
		{"ip", "192.0.2.7", "[192.0.2.7]"},
	} {
		if got, err := r.LookupNetIP(t.Context(), tc.network, tc.host); fmt.Sprint(got) != tc.want || err != nil {
			t.Errorf("%s %s: %v, %v", tc.network, tc.host, got, err)
		}
	}
	if _, err := r.LookupNetIP(t.Context(), "ip", "bad.test"); err != boom {
		t.Error(err)
	}
	var dnsErr *net.DNSError
	if _, err := r.LookupNetIP(t.Context(), "ip", "none.test"); !errors.As(err, &dnsErr) || !dnsErr.IsNotFound {
		t.Error(err)
	}
	if r.Lookups() != 5 || r.LookupsOf("a.test") != 3 || r.LookupsOf("none.test") != 1 {
		t.Errorf("%d look-ups, %d of a.test", r.Lookups(), r.LookupsOf("a.test"))
	}
	r.Reset()
	if r.Lookups() != 0 || r.LookupsOf("a.test") != 0 {
		t.Error("counts are left")
	}
}

func TestResolverDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r lab.Resolver
		r.Set("a.test", netip.MustParseAddr("192.0.2.1"))
		r.SetDelay(time.Second)
		start := time.Now()
		if _, err := r.LookupNetIP(t.Context(), "ip", "a.test"); err != nil || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := r.LookupNetIP(ctx, "ip", "a.test"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}
