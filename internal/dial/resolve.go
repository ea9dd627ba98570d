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
// brackets, is its own address. It returns soon after ctx ends, also if the
// Resolver does not heed ctx.
//
// An error is a *net.OpError that holds a *net.DNSError, as from dialing host.
func (d *Dialer) Resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr.Unmap()}, nil
	}
	if addrs := spareAddrs(ctx, host); len(addrs) > 0 {
		return addrs, nil
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
	if d.timeout != 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.timeout)
		defer cancel()
	}
	if r, ok := d.resolver.(*net.Resolver); ok {
		answer, err := lookupNet(ctx, r, host)
		return addresses(host, answer, err)
	}
	trace := httptrace.ContextClientTrace(ctx)
	if trace != nil && trace.DNSStart != nil {
		trace.DNSStart(httptrace.DNSStartInfo{Host: host})
	}
	answer, err := d.ask(untraced{ctx}, host)
	addrs, err := addresses(host, answer, err)
	if trace != nil && trace.DNSDone != nil {
		info := httptrace.DNSDoneInfo{Err: err}
		for _, addr := range addrs {
			info.Addrs = append(info.Addrs, net.IPAddr{IP: addr.AsSlice(), Zone: addr.Zone()})
		}
		trace.DNSDone(info)
	}
	return addrs, err
}

// lookupNet is r.LookupNetIP, but for two things that net.Dialer does and it does
// not: addresses keep their zones, and httptrace does not hear of connections
// to DNS servers.
func lookupNet(ctx context.Context, r *net.Resolver, host string) ([]netip.Addr, error) {
	ctx = Retrace(ctx, func(t *httptrace.ClientTrace) { t.ConnectStart, t.ConnectDone = nil, nil })
	ips, err := r.LookupIPAddr(ctx, host)
	answer := make([]netip.Addr, 0, len(ips))
	for _, ip := range ips {
		addr, _ := netip.AddrFromSlice(ip.IP)
		answer = append(answer, addr.Unmap().WithZone(ip.Zone))
	}
	return answer, err
}

// ask asks a Resolver of the caller's own, but waits no longer than until the
// end of ctx.
func (d *Dialer) ask(ctx context.Context, host string) ([]netip.Addr, error) {
	type result struct {
		answer []netip.Addr
		err    error
	}
	done := make(chan result, 1)
	d.wg.Go(func() {
		r := result{err: errExited}
		defer unlessPanicking(func() { done <- r })
		r.answer, r.err = d.resolver.LookupNetIP(ctx, "ip", host)
	})
	select {
	case r := <-done:
		return r.answer, r.err
	case <-ctx.Done():
		return nil, netError(ctx.Err())
	}
}

// addresses makes of a resolver's answer what Resolve promises of it, but for
// the *net.OpError.
func addresses(host string, answer []netip.Addr, err error) ([]netip.Addr, error) {
	if err != nil {
		return nil, dnsError(host, err)
	}
	addrs := distinct(answer)
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return addrs, nil
}

// distinct returns the valid ones of addrs, unmapped and each once. It leaves
// addrs alone, which may be a cache's.
func distinct(addrs []netip.Addr) []netip.Addr {
	const handful = 16 // to search that many takes less time than to hash one
	var seen map[netip.Addr]struct{}
	if len(addrs) > handful {
		seen = make(map[netip.Addr]struct{}, len(addrs))
	}
	list := make([]netip.Addr, 0, len(addrs))
	for _, addr := range addrs {
		if addr = addr.Unmap(); !addr.IsValid() {
			continue
		}
		if seen == nil {
			if slices.Contains(list, addr) {
				continue
			}
		} else {
			if _, ok := seen[addr]; ok {
				continue
			}
			seen[addr] = struct{}{}
		}
		list = append(list, addr)
	}
	return list
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
