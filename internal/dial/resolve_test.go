package dial_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/h2coalesce/h2coalesce/internal/dial"
)

// A resolverFunc is a Resolver that is not a *net.Resolver.
type resolverFunc func(ctx context.Context, network, host string) ([]netip.Addr, error)

func (f resolverFunc) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	return f(ctx, network, host)
}

// answer is a Resolver that knows one answer.
func answer(addrs ...string) resolverFunc {
	return func(context.Context, string, string) ([]netip.Addr, error) {
		var list []netip.Addr
		for _, addr := range addrs {
			list = append(list, netip.MustParseAddr(addr))
		}
		return list, nil
	}
}

func failing(err error) resolverFunc {
	return func(context.Context, string, string) ([]netip.Addr, error) { return nil, err }
}

func mustNotResolve(t *testing.T) resolverFunc {
	return func(_ context.Context, _, host string) ([]netip.Addr, error) {
		t.Errorf("%s was looked up", host)
		return nil, errors.New("looked up")
	}
}

func TestP8_Resolve(t *testing.T) {
	tests := []struct {
		name, host string
		resolver   dial.Resolver
		want       []string
	}{
		{"order is kept", "a.example", answer(v6b, v4b, v6a, v4a), []string{v6b, v4b, v6a, v4a}},
		{"duplicates", "a.example", answer(v4a, v4b, v4a), []string{v4a, v4b}},
		{"mapped", "a.example", answer("::ffff:192.0.2.1", v4a, "::ffff:192.0.2.2"), []string{v4a, v4b}},
		{"zones are told apart", "a.example", answer("fe80::1%a", "fe80::1%b"), []string{"fe80::1%a", "fe80::1%b"}},
		{"IPv4 literal", v4a, mustNotResolve(t), []string{v4a}},
		{"IPv6 literal", v6a, mustNotResolve(t), []string{v6a}},
		{"mapped literal", "::ffff:192.0.2.1", mustNotResolve(t), []string{v4a}},
		{"literal with zone", "fe80::1%eth0", mustNotResolve(t), []string{"fe80::1%eth0"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			addrs, err := dial.New(&http.Transport{}, test.resolver).Resolve(t.Context(), test.host)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, addr := range addrs {
				got = append(got, addr.String())
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("addresses (-want +got):\n%s", diff)
			}
		})
	}
}

func TestP8_ResolveAsksForBothFamilies(t *testing.T) {
	d := dial.New(&http.Transport{}, resolverFunc(func(_ context.Context, network, host string) ([]netip.Addr, error) {
		if network != "ip" || host != "a.example" {
			t.Errorf("looked up %q, %q", network, host)
		}
		return answer(v4a)(nil, "", "")
	}))
	if _, err := d.Resolve(t.Context(), "a.example"); err != nil {
		t.Error(err)
	}
}

func TestP8_ResolveErrors(t *testing.T) {
	dns := &net.DNSError{Err: "server misbehaving", Name: "a.example", IsTemporary: true}
	broken := errors.New("broken")
	tests := []struct {
		name     string
		resolver dial.Resolver
		want     net.DNSError
		is       error
		text     string
	}{{
		name:     "empty answer",
		resolver: answer(),
		want:     net.DNSError{Err: "no such host", Name: "a.example", IsNotFound: true},
		text:     "dial tcp: lookup a.example: no such host",
	}, {
		name:     "only invalid addresses",
		resolver: resolverFunc(func(context.Context, string, string) ([]netip.Addr, error) { return make([]netip.Addr, 2), nil }),
		want:     net.DNSError{Err: "no such host", Name: "a.example", IsNotFound: true},
		text:     "dial tcp: lookup a.example: no such host",
	}, {
		name:     "DNSError",
		resolver: failing(dns),
		want:     *dns,
		is:       dns,
		text:     "dial tcp: lookup a.example: server misbehaving",
	}, {
		name:     "wrapped DNSError",
		resolver: failing(fmt.Errorf("cache: %w", dns)),
		want:     *dns,
		is:       dns,
		text:     "dial tcp: cache: lookup a.example: server misbehaving",
	}, {
		name:     "any other error",
		resolver: failing(broken),
		want:     net.DNSError{Err: "broken", Name: "a.example"},
		is:       broken,
		text:     "dial tcp: lookup a.example: broken",
	}, {
		name:     "context over",
		resolver: failing(context.DeadlineExceeded),
		want:     net.DNSError{Err: "context deadline exceeded", Name: "a.example", IsTimeout: true, IsTemporary: true},
		is:       context.DeadlineExceeded,
		text:     "dial tcp: lookup a.example: context deadline exceeded",
	}}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			addrs, err := dial.New(&http.Transport{}, test.resolver).Resolve(t.Context(), "a.example")
			if addrs != nil {
				t.Errorf("addresses %v beside an error", addrs)
			}
			op, ok := err.(*net.OpError)
			if !ok || op.Op != "dial" || op.Net != "tcp" {
				t.Fatalf("error %#v is not the *net.OpError of a dial", err)
			}
			got := *as[*net.DNSError](t, err)
			if diff := cmp.Diff(test.want, got, cmpopts.IgnoreFields(net.DNSError{}, "UnwrapErr")); diff != "" {
				t.Errorf("DNSError (-want +got):\n%s", diff)
			}
			if test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("error %v does not hold %v", err, test.is)
			}
			if err.Error() != test.text {
				t.Errorf("text %q, want %q", err, test.text)
			}
		})
	}
}

// TestP8_ResolveFailsAsNetHTTPDoes compares the errors of one *net.Resolver
// whose servers cannot be reached.
func TestP8_ResolveFailsAsNetHTTPDoes(t *testing.T) {
	resolver := unplugged()
	base := &http.Transport{DialContext: (&net.Dialer{Resolver: resolver}).DialContext}
	_, err := base.RoundTrip(newRequest(t, "https://a.example."))
	want := as[*net.DNSError](t, err)

	_, got := dial.New(&http.Transport{}, resolver).Resolve(t.Context(), "a.example.")
	if diff := cmp.Diff(want, as[*net.DNSError](t, got)); diff != "" {
		t.Errorf("DNSError (-net/http +Resolve):\n%s", diff)
	}
	if got.Error() != err.Error() {
		t.Errorf("text %q, net/http's %q", got, err)
	}
}

func TestP8_NothingIsLookedUpBesideACustomDialer(t *testing.T) {
	dialContext := func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("down") }
	plain := func(string, string) (net.Conn, error) { return nil, errors.New("down") }
	tests := map[string]*http.Transport{
		"DialContext":    {DialContext: dialContext},
		"Dial":           {Dial: plain},
		"DialTLSContext": {DialTLSContext: dialContext},
		"DialTLS":        {DialTLS: plain},
		"DialTLSContext beside the stock dialer": {
			DialTLSContext: dialContext,
			DialContext:    http.DefaultTransport.(*http.Transport).DialContext,
		},
	}
	for name, base := range tests {
		t.Run(name, func(t *testing.T) {
			d := dial.New(base, nil)
			if d.Resolves() {
				t.Error("Resolves without a Resolver")
			}
			if addrs, err := d.Resolve(t.Context(), "localhost"); err == nil {
				t.Errorf("localhost was looked up: %v", addrs)
			}
			if !dial.New(base, answer(v4a)).Resolves() {
				t.Error("the Resolver is not used")
			}
		})
	}
	if !dial.New(&http.Transport{}, nil).Resolves() {
		t.Error("no look-up though no dial function is set")
	}
	// DialContext goes before Dial.
	stock := http.DefaultTransport.(*http.Transport).DialContext
	//lint:ignore SA1019 the deprecated field is under test
	if !dial.New(&http.Transport{DialContext: stock, Dial: plain}, nil).Resolves() {
		t.Error("Dial counts although DialContext is set")
	}
}

func TestD_TraceOfALookup(t *testing.T) {
	down := errors.New("down")
	// A cache is the usual Resolver, and asks a *net.Resolver in its turn.
	cache := resolverFunc(func(ctx context.Context, network, host string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, network, host)
	})
	tests := []struct {
		name, host string
		resolver   dial.Resolver
		want       []string
	}{
		{"net.Resolver", "localhost", net.DefaultResolver, []string{"DNSStart", "DNSDone <nil>"}},
		{"cache around it", "localhost", cache, []string{"DNSStart", "DNSDone <nil>"}},
		{"other", "a.example", answer(v4a), []string{"DNSStart", "DNSDone <nil>"}},
		{"failure", "a.example", failing(down), []string{"DNSStart", "DNSDone lookup a.example: down"}},
		{"literal", v4a, answer(v4a), nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var ev events
			addrs, _ := dial.New(&http.Transport{}, test.resolver).Resolve(ev.trace(t.Context()), test.host)
			if diff := cmp.Diff(test.want, ev.list); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			if test.want != nil && len(addrs) != len(ev.addrs) {
				t.Errorf("DNSDone told %v, Resolve %v", ev.addrs, addrs)
			}
		})
	}
}

func TestD_ResolverKeepsOtherContextValues(t *testing.T) {
	type key struct{}
	ctx := context.WithValue(t.Context(), key{}, "kept")
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{})
	d := dial.New(&http.Transport{}, resolverFunc(func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
		if ctx.Value(key{}) != "kept" {
			t.Error("a value of the context is missing")
		}
		if httptrace.ContextClientTrace(ctx) != nil {
			t.Error("the trace is not hidden")
		}
		return nil, ctx.Err()
	}))
	_, _ = d.Resolve(ctx, "a.example")
}

// many returns n addresses, each of them twice.
func many(n int) []netip.Addr {
	var addrs []netip.Addr
	for range 2 {
		for i := range n {
			addrs = append(addrs, netip.AddrFrom4([4]byte{198, byte(i >> 16), byte(i >> 8), byte(i)}))
		}
	}
	return addrs
}

// TestP8_ResolveALongAnswer: the time grows with the number of addresses, not
// with its square.
func TestP8_ResolveALongAnswer(t *testing.T) {
	const n = 200_000
	long := many(n)
	d := dial.New(&http.Transport{}, resolverFunc(func(context.Context, string, string) ([]netip.Addr, error) { return long, nil }))
	began := time.Now()
	addrs, err := d.Resolve(t.Context(), "a.example")
	if took := time.Since(began); took > 5*time.Second { // of some milliseconds
		t.Errorf("took %v", took)
	}
	if err != nil || !slices.Equal(addrs, long[:n]) {
		t.Errorf("got %d addresses, %v; want the first %d", len(addrs), err, n)
	}
	if !slices.Equal(long, many(n)) {
		t.Error("the resolver's answer was modified")
	}
}

// TestP8_ResolveAHandfulAllocatesOneList compares with an answer of one address.
func TestP8_ResolveAHandfulAllocatesOneList(t *testing.T) {
	allocs := func(answer []netip.Addr) float64 {
		d := dial.New(&http.Transport{}, resolverFunc(func(context.Context, string, string) ([]netip.Addr, error) { return answer, nil }))
		return testing.AllocsPerRun(100, func() {
			if _, err := d.Resolve(t.Context(), "a.example"); err != nil {
				t.Error(err)
			}
		})
	}
	one := allocs(many(1)[:1])
	for _, n := range []int{2, 8} {
		if got := allocs(many(n)); got > one+0.5 {
			t.Errorf("%v allocations for %d addresses, %v for one", got, n, one)
		}
	}
}

// TestP8_ResolverThatIgnoresItsContext: the look-up ends with the context, and
// so it is told to httptrace, once.
func TestP8_ResolverThatIgnoresItsContext(t *testing.T) {
	tests := map[string]struct {
		with func(context.Context) (context.Context, context.CancelFunc)
		want string
		is   error
	}{
		"deadline": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Second)
		}, "dial tcp: lookup a.example: i/o timeout", context.DeadlineExceeded},
		"canceled": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Second, cancel)
			return ctx, cancel
		}, "dial tcp: lookup a.example: operation was canceled", context.Canceled},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := dial.New(&http.Transport{}, resolverFunc(func(context.Context, string, string) ([]netip.Addr, error) {
					time.Sleep(time.Hour)
					return answer(v4a)(nil, "", "")
				}))
				ctx, cancel := test.with(t.Context())
				defer cancel()
				var ev events
				began := time.Now()
				_, err := d.Resolve(ev.trace(ctx), "a.example")
				if after := time.Since(began); after != time.Second {
					t.Errorf("returned after %v, want 1s", after)
				}
				if err == nil || err.Error() != test.want || !errors.Is(err, test.is) {
					t.Errorf("error %v, want %s", err, test.want)
				}
				if e := as[*net.DNSError](t, err); e.Timeout() != (test.is == context.DeadlineExceeded) {
					t.Errorf("%+v", e)
				}
				d.Wait()
				if diff := cmp.Diff([]string{"DNSStart", "DNSDone" + strings.TrimPrefix(test.want, "dial tcp:")}, ev.list); diff != "" {
					t.Errorf("events (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// TestP8_StockTimeoutOfALookup: in net/http the Timeout of the stock dialer
// bounds the look-up.
func TestP8_StockTimeoutOfALookup(t *testing.T) {
	hangs := func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, err := dial.New(stock(), resolverFunc(hangs)).Resolve(t.Context(), "a.example")
		if after := time.Since(began); after != 30*time.Second {
			t.Errorf("returned after %v, want 30s", after)
		}
		if e := as[*net.DNSError](t, err); !e.Timeout() || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v is no timeout", err)
		}
	})
}

func TestP8_ResolverThatEndsItsGoroutine(t *testing.T) {
	d := dial.New(&http.Transport{}, resolverFunc(func(context.Context, string, string) ([]netip.Addr, error) {
		runtime.Goexit()
		return nil, nil
	}))
	if addrs, err := d.Resolve(t.Context(), "a.example"); err == nil {
		t.Errorf("got %v", addrs)
	} else {
		as[*net.DNSError](t, err)
	}
}

// unplugged returns a net.Resolver that can ask nobody.
func unplugged() *net.Resolver {
	return &net.Resolver{
		PreferGo: true,
		Dial:     func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("unplugged") },
	}
}

// answering is a context in which every *net.Resolver answers with addrs: by the
// key that package net has for the tests of net/http.
type answering struct {
	context.Context
	addrs []net.IPAddr
}

func (c answering) Value(key any) any {
	if reflect.TypeOf(key).String() == "nettrace.LookupIPAltResolverKey" {
		return func(context.Context, string, string) ([]net.IPAddr, error) { return c.addrs, nil }
	}
	return c.Context.Value(key)
}

// TestP8_ZonesOfANetResolver: LookupNetIP loses them, net.Dialer does not.
func TestP8_ZonesOfANetResolver(t *testing.T) {
	ctx := answering{t.Context(), []net.IPAddr{
		{IP: net.ParseIP("fe80::1"), Zone: "eth0"},
		{IP: net.ParseIP("fe80::1"), Zone: "eth1"},
		{IP: net.ParseIP(v4a)}, // in 16 bytes
	}}
	got, err := dial.New(&http.Transport{}, unplugged()).Resolve(ctx, "zones.example")
	want := []netip.Addr{netip.MustParseAddr("fe80::1%eth0"), netip.MustParseAddr("fe80::1%eth1"), netip.MustParseAddr(v4a)}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
}

// TestD_ConnectionsToDNSServersAreNotTraced: net.Dialer hides them, a
// net.Resolver by itself does not.
func TestD_ConnectionsToDNSServersAreNotTraced(t *testing.T) {
	resolver := &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", "127.0.0.1:1") // nobody is there
		},
	}
	var want, got events
	req := newRequest(t, "https://a.example./")
	base := &http.Transport{DialContext: (&net.Dialer{Resolver: resolver}).DialContext}
	_, _ = base.RoundTrip(req.WithContext(want.trace(req.Context())))
	_, _ = dial.New(&http.Transport{}, resolver).Resolve(got.trace(t.Context()), "a.example.")
	if diff := cmp.Diff(want.list, got.list); diff != "" || len(got.list) != 2 {
		t.Errorf("events (-net/http +Resolve):\n%s", diff)
	}
}
