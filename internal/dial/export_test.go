package dial

import (
	"context"
	"crypto/tls"
	"net"
)

// SetDialAddr replaces what dials a literal address.
func (d *Dialer) SetDialAddr(f func(ctx context.Context, network, addr string) (net.Conn, error)) {
	d.dialAddr = f
}

// IsStock is isStock.
func IsStock(f func(ctx context.Context, network, addr string) (net.Conn, error)) bool {
	return isStock(f)
}

// Wait returns when every goroutine that Dial has started has ended. It must not
// be called while a Dial is in progress.
func (d *Dialer) Wait() { d.wg.Wait() }

// WatchClientCert is watchClientCert.
func WatchClientCert(cfg *tls.Config) func(tls.ConnectionState) bool { return watchClientCert(cfg) }
