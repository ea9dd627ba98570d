package dial_test

import (
	"context"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/h2coalesce/h2coalesce/internal/dial"
)

func TestP8_StockDialer(t *testing.T) {
	stock := http.DefaultTransport.(*http.Transport)
	plain := func(ctx context.Context, network, addr string) (net.Conn, error) { return nil, nil }
	tests := []struct {
		name string
		f    func(ctx context.Context, network, addr string) (net.Conn, error)
		want bool
	}{
		{"DefaultTransport", stock.DialContext, true},
		{"clone", stock.Clone().DialContext, true},
		{"clone of a clone", stock.Clone().Clone().DialContext, true},
		{"function", plain, false},
		{"closure around it", func(ctx context.Context, network, addr string) (net.Conn, error) {
			return stock.DialContext(ctx, network, addr)
		}, false},
		{"zero net.Dialer", new(net.Dialer).DialContext, false},
		{"other timeout", (&net.Dialer{Timeout: time.Second, KeepAlive: 30 * time.Second}).DialContext, false},
		{"own resolver", (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second, Resolver: new(net.Resolver)}).DialContext, false},
		{"method of another type", tunnel{}.DialContext, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := dial.IsStock(test.f); got != test.want {
				t.Errorf("isStock = %t, want %t", got, test.want)
			}
			d := dial.New(&http.Transport{DialContext: test.f}, nil)
			if got := d.Resolves(); got != test.want {
				t.Errorf("Resolves = %t, want %t", got, test.want)
			}
		})
	}
}

type tunnel struct{}

func (tunnel) DialContext(context.Context, string, string) (net.Conn, error) { return nil, nil }

func TestP8_StockDialerSurvivesReplacedDefault(t *testing.T) {
	former := http.DefaultTransport
	defer func() { http.DefaultTransport = former }()
	base := former.(*http.Transport).Clone()
	http.DefaultTransport = struct{ http.RoundTripper }{former}
	if !dial.New(base, nil).Resolves() {
		t.Error("a clone made before http.DefaultTransport was replaced counts as custom")
	}
}
