package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/transport"
)

// anyHost is the host of an entry for all hosts without one.
const anyHost = "*"

// overrides is the Resolver that -resolve makes: fixed addresses for some
// hosts, the system's for the others.
type overrides struct {
	hosts map[string]override
	next  transport.Resolver
}

// override is what is fixed for a host. A Resolver is not told the port, so a
// host has the same addresses on all ports that have any.
type override struct {
	ports []int
	addrs []netip.Addr
}

var _ transport.Resolver = (*overrides)(nil)

// LookupNetIP answers with a host's entry, else with that for all hosts.
func (o *overrides) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if e, ok := o.of(host); ok {
		return slices.Clone(e.addrs), nil
	}
	return o.next.LookupNetIP(ctx, network, host)
}

func (o *overrides) of(host string) (override, bool) {
	e, ok := o.hosts[host]
	if !ok {
		e, ok = o.hosts[anyHost]
	}
	return e, ok
}

// hostPort is a canonical host, or anyHost, and a port.
type hostPort struct {
	host string
	port int
}

// parseResolve reads entries of the form [+]HOST:PORT:ADDR[,ADDR]..., of
// which the last one for a host and port counts, as in curl. (There the plus sign
// lets an entry expire, which takes longer than this command runs.)
func parseResolve(entries []string) (*overrides, error) {
	all := make(map[hostPort][]netip.Addr)
	for _, entry := range entries {
		key, addrs, err := parseEntry(entry)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", entry, err)
		}
		all[key] = addrs
	}
	o := &overrides{hosts: make(map[string]override), next: net.DefaultResolver}
	for _, key := range slices.SortedFunc(maps.Keys(all), comparePorts) {
		e, known := o.hosts[key.host]
		if known && !sameAddrs(e.addrs, all[key]) {
			return nil, fmt.Errorf("gives %s different addresses for ports %d and %d; a host is looked up once for all its ports",
				key.host, e.ports[0], key.port)
		}
		if !known {
			e.addrs = all[key]
		}
		e.ports = append(e.ports, key.port)
		o.hosts[key.host] = e
	}
	return o, nil
}

func comparePorts(a, b hostPort) int { return a.port - b.port }

func sameAddrs(a, b []netip.Addr) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.SortFunc(a, netip.Addr.Compare)
	slices.SortFunc(b, netip.Addr.Compare)
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}

var errEntry = errors.New("want HOST:PORT:ADDR[,ADDR]")

func parseEntry(entry string) (key hostPort, addrs []netip.Addr, err error) {
	if strings.HasPrefix(entry, "-") {
		return key, nil, errors.New("there are no entries to remove")
	}
	host, rest, ok := strings.Cut(strings.TrimPrefix(entry, "+"), ":")
	port, list, ok2 := strings.Cut(rest, ":")
	if !ok || !ok2 {
		return key, nil, errEntry
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return key, nil, fmt.Errorf("%w: %q is no port", errEntry, port)
	}
	if host != anyHost {
		if host, err = coalesce.CanonicalHost(host); err != nil {
			return key, nil, fmt.Errorf("%w: %s", errEntry, strings.TrimPrefix(err.Error(), "coalesce: "))
		}
		if _, err := netip.ParseAddr(host); err == nil {
			return key, nil, errors.New("the host is an address, which is not looked up")
		}
	}
	for text := range strings.SplitSeq(list, ",") {
		addr, err := parseAddr(text)
		if err != nil {
			return key, nil, fmt.Errorf("%w: %q is no IP address", errEntry, text)
		}
		addrs = append(addrs, addr)
	}
	return hostPort{host, int(n)}, addrs, nil
}

// parseAddr reads an IP address; one of IPv6 may be in brackets.
func parseAddr(text string) (netip.Addr, error) {
	if inner, ok := strings.CutPrefix(text, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); ok && strings.Contains(inner, ":") {
			text = inner
		}
	}
	addr, err := netip.ParseAddr(text)
	return addr.Unmap(), err
}

// check reports URLs for which an entry would not mean what it says: an entry
// is for one port, but would be used for all, and plain http is net/http's,
// which does not ask the Resolver.
func (o *overrides) check(urls []*url.URL) error {
	for _, u := range urls {
		host, err := coalesce.CanonicalHost(u.Hostname())
		if err != nil {
			continue // the request fails, and tells why
		}
		if _, err := netip.ParseAddr(host); err == nil {
			continue
		}
		e, ok := o.of(host)
		if !ok {
			continue
		}
		port := portOf(u)
		listed := slices.Contains(e.ports, port)
		switch {
		case u.Scheme == "http" && listed:
			return fmt.Errorf("has no effect on plain http: %s", redacted(u))
		case u.Scheme == "https" && !listed:
			return fmt.Errorf("gives %s addresses for port %d, but not for port %d, which is asked for too; a host is looked up once for all its ports",
				host, e.ports[0], port)
		}
	}
	return nil
}
