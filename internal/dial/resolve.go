package dial

import (
	"context"
	"errors"
	"net"
	"net/http/httptrace"
	"net/netip"
	"slices"
)

// A Resolver looks up the addresses of a host. *net.Resolver is one.
type Resolver interface {
	// LookupNetIP is asked for network "ip", and for A-labels only. It must be
	// safe for concurrent use and should return when ctx ends.
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

var errNoResolver = errors.New("no resolver beside a custom dial function")

// Resolves tells whether hosts are looked up before they are dialed. They are
// not if a custom dial function is set and no Resolver.
func (d *Dialer) Resolves() bool { return d.resolver != nil }

// Resolve returns all addresses of host in the resolver's order, unmapped and
// each once, and at least one if there is no error. An IP literal, without
// brackets, is its own address. It blocks as long as the Resolver does.
//
// An error is a *net.OpError that holds a *net.DNSError, as from dialing host.
func (d *Dialer) Resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr.Unmap()}, nil
	}
	addrs, err := d.lookup(ctx, host)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
	return addrs, nil
}

// lookup asks the resolver and makes sure that httptrace hears of it once:
// *net.Resolver tells it from the context, others are spoken for.
func (d *Dialer) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if d.resolver == nil {
		return nil, dnsError(host, errNoResolver)
	}
	trace := httptrace.ContextClientTrace(ctx)
	if _, ok := d.resolver.(*net.Resolver); ok || trace == nil {
		return lookup(ctx, d.resolver, host)
	}
	if trace.DNSStart != nil {
		trace.DNSStart(httptrace.DNSStartInfo{Host: host})
	}
	addrs, err := lookup(untraced{ctx}, d.resolver, host)
	if trace.DNSDone != nil {
		info := httptrace.DNSDoneInfo{Err: err}
		for _, addr := range addrs {
			info.Addrs = append(info.Addrs, net.IPAddr{IP: addr.AsSlice(), Zone: addr.Zone()})
		}
		trace.DNSDone(info)
	}
	return addrs, err
}

func lookup(ctx context.Context, r Resolver, host string) ([]netip.Addr, error) {
	answer, err := r.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, dnsError(host, err)
	}
	addrs := make([]netip.Addr, 0, len(answer))
	for _, addr := range answer {
		// Linear search: an answer is a handful of addresses.
		if addr = addr.Unmap(); addr.IsValid() && !slices.Contains(addrs, addr) {
			addrs = append(addrs, addr)
		}
	}
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return addrs, nil
}

// dnsError returns err if it holds a *net.DNSError, and else puts it into one:
// callers tell a failed look-up by that type.
func dnsError(host string, err error) error {
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return err
	}
	timeout := isTimeout(err)
	return &net.DNSError{
		Err: err.Error(), Name: host, UnwrapErr: err,
		IsTimeout: timeout, IsTemporary: timeout,
	}
}
