package dial_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/h2coalesce/h2coalesce/internal/dial"
)

// TestP9_ASpareIsUsedOnce: by a Dial to the same target, which then makes no
// connection, and whose look-up has been made.
func TestP9_ASpareIsUsedOnce(t *testing.T) {
	addrs := []netip.Addr{netip.MustParseAddr(v4a), netip.MustParseAddr(v6a)}
	kept := dial.Target{Host: "a.example", Port: 443, Addrs: addrs, Protos: []string{"h2", "http/1.1"}, Partition: "p"}
	change := func(f func(*dial.Target)) dial.Target {
		t := kept
		f(&t)
		return t
	}
	for _, test := range []struct {
		name   string
		target dial.Target
		used   bool
	}{
		{"same", kept, true},
		{"other addresses", change(func(t *dial.Target) { t.Addrs = nil }), true},
		{"other host", change(func(t *dial.Target) { t.Host = "b.example" }), false},
		{"other port", change(func(t *dial.Target) { t.Port = 8443 }), false},
		{"other partition", change(func(t *dial.Target) { t.Partition = "" }), false},
		{"other protocols", change(func(t *dial.Target) { t.Protos = []string{"http/1.1"} }), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			client, server := net.Pipe()
			defer server.Close()
			conn := newSpy(client)
			r := &dial.Result{Conn: conn, TLS: new(tls.ConnectionState)}
			spare := dial.NewSpare(kept, r)
			ctx := dial.WithSpare(t.Context(), spare)
			asked := 0
			d := dial.New(&http.Transport{}, resolverFunc(func(context.Context, string, string) ([]netip.Addr, error) {
				asked++
				return answer(v4b)(nil, "", "")
			}))
			d.SetDialAddr(func(context.Context, string, string) (net.Conn, error) { return nil, refused })

			got, err := d.Resolve(ctx, test.target.Host)
			if same := slices.Equal(got, addrs); err != nil || same != (test.target.Host == "a.example") || same == (asked == 1) {
				t.Errorf("Resolve: %v, %v, %d look-ups", got, err, asked)
			}
			var ev events
			for i := range 2 {
				got, err := d.Dial(ev.trace(ctx), test.target)
				if used := got == r; used != (test.used && i == 0) || (err == nil) != used {
					t.Errorf("Dial %d: %v, %v", i, got, err)
				}
			}
			if len(ev.list) != 0 {
				t.Errorf("events %q", ev.list)
			}
			if got, _ := d.Resolve(ctx, "a.example"); slices.Equal(got, addrs) == test.used {
				t.Errorf("Resolve afterwards: %v", got)
			}
			spare.Close()
			if conn.Closed() == test.used {
				t.Errorf("closed: %t", conn.Closed())
			}
			spare.Close()
			client.Close()
		})
	}
}

func TestP9_NothingToSpare(t *testing.T) {
	spare := new(dial.Spare)
	d := dial.New(&http.Transport{}, answer(v4a))
	d.SetDialAddr(func(context.Context, string, string) (net.Conn, error) { return nil, refused })
	ctx := dial.WithSpare(t.Context(), spare)
	if r, err := d.Dial(ctx, dial.Target{Host: "a.example", Port: 443}); err != refused {
		t.Errorf("got %v, %v", r, err)
	}
	addrs, err := d.Resolve(ctx, "a.example")
	if diff := cmp.Diff([]string{v4a}, []string{addrs[0].String()}); diff != "" || err != nil {
		t.Error(diff, err)
	}
	spare.Close()
}
