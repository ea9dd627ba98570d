package lab

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"syscall"
)

// DialPipe returns the client end of a pipe whose other end the server on ip
// serves. It works in labs of both kinds. Without a server on ip the error is
// ECONNREFUSED.
func (l *Lab) DialPipe(ip string) (net.Conn, error) {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	l.mu.Lock()
	e := l.servers[addr]
	remote := netip.AddrPortFrom(addr, uint16(l.port))
	if l.clientPort++; l.clientPort < 49152 {
		l.clientPort = 49152
	}
	host := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if addr.Is6() {
		host = netip.IPv6Loopback()
	}
	local := netip.AddrPortFrom(host, l.clientPort)
	l.mu.Unlock()

	if e == nil {
		return nil, refused(net.TCPAddrFromAddrPort(remote))
	}
	client, server := PipeAddr(local, remote)
	if err := l.start(e, server); err != nil {
		return nil, err
	}
	return client, nil
}

// DialContext connects to "host:port", an IP or a name the lab's resolver
// knows, whose addresses it tries in order. It suits http.Transport.DialContext.
func (l *Lab) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addrs, err := l.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	for _, addr := range addrs {
		var nc net.Conn
		switch {
		case !l.inMemory:
			nc, err = new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(addr.String(), port))
		case port != strconv.Itoa(l.Port()):
			err = refused(nil)
		default:
			nc, err = l.DialPipe(addr.String())
		}
		if err == nil {
			return nc, nil
		}
	}
	return nil, err
}

// Transport returns a new http.Transport that speaks HTTP/2 and HTTP/1.1 to
// the lab's hosts. The caller closes its idle connections.
func (l *Lab) Transport() *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	return &http.Transport{
		DialContext:     l.DialContext,
		TLSClientConfig: l.TLSConfig(),
		Protocols:       protocols,
	}
}

func refused(addr net.Addr) error {
	return &net.OpError{Op: "dial", Net: "tcp", Addr: addr, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
}
