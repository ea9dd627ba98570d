package dial

import (
	"context"
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
