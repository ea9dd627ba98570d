package dial_test

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestP8_AThousandAddresses has none of them answer, but the last in one case.
func TestP8_AThousandAddresses(t *testing.T) {
	ca := newAuthority(t)
	server := ca.Server(t, "a.example")
	var addrs []string
	for i := range 1000 {
		addrs = append(addrs, netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}).String())
	}
	last := addrs[999]
	refusing := make(map[string]host)
	for _, addr := range addrs[:999] {
		refusing[addr] = host{after: time.Millisecond, err: refused}
	}
	refusing[last] = host{}
	for _, test := range []struct {
		name     string
		hosts    map[string]host
		stock    bool
		deadline time.Duration
		calls    int // attempts made
		most     int // of them at once
		after    time.Duration
		won      bool
	}{
		{"refused", refusing, false, 0, 1000, 1, 999 * time.Millisecond, true},
		{"no answer, no limit", map[string]host{last: {}}, false, 0, 1000, 65, 249750 * time.Millisecond, true},
		{"no answer, the stock dialer's limit", nil, true, 0, 120, 9, 30 * time.Second, false},
		{"no answer, a deadline", nil, false, 10100 * time.Millisecond, 41, 9, 10100 * time.Millisecond, false},
		{"no answer, a far deadline", map[string]host{last: {}}, false, 24 * time.Hour, 1000, 65, 249750 * time.Millisecond, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if test.deadline != 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, test.deadline)
					defer cancel()
				}
				base := new(http.Transport)
				if test.stock {
					base = stock()
				}
				base.TLSClientConfig = &tls.Config{RootCAs: ca.Pool}
				n := newFakeNet(server, test.hosts)
				o := n.runFrom(t, ctx, base, addrs...)
				if (o.err == nil) != test.won {
					t.Errorf("error %.80v", o.err)
				}
				if o.after != test.after {
					t.Errorf("returned after %v, want %v", o.after, test.after)
				}
				calls := len(n.calls)
				if test.stock && calls == 121 {
					calls-- // the next one is due when the time is up, and that is a draw
				}
				if calls != test.calls || n.most > test.most {
					t.Errorf("%d attempts, up to %d at once; want %d, up to %d", calls, n.most, test.calls, test.most)
				}
				if o.err == nil {
					o.Conn.Close()
				} else if got := strings.Count(o.err.Error(), ":443: "); got != len(n.calls) {
					t.Errorf("the error names %d addresses, want %d", got, len(n.calls))
				}
				n.wg.Wait()
			})
		})
	}
}

// TestP8_NoLimitForAHandful: without a deadline an attempt takes what the
// system gives it.
func TestP8_NoLimitForAHandful(t *testing.T) {
	ca := newAuthority(t)
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet(ca.Server(t, "a.example"), map[string]host{v6a: {after: 2 * time.Minute}})
		o := n.run(t, t.Context(), &tls.Config{RootCAs: ca.Pool}, v6a, v6b, v4a, v4b)
		if o.err != nil || o.after != 2*time.Minute {
			t.Fatalf("%v after %v, want a connection after 2m", o.err, o.after)
		}
		o.Conn.Close()
		n.wg.Wait()
	})
}
