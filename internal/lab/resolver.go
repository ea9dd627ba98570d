package lab

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Resolver gives fixed answers and counts how often it is asked. Host names
// are compared without regard to ASCII case or one trailing dot. It is safe for
// concurrent use; the zero value knows no host.
type Resolver struct {
	mu      sync.Mutex
	hosts   map[string]answer
	delay   time.Duration
	lookups int
	perHost map[string]int
}

type answer struct {
	addrs []netip.Addr
	err   error
}

// Set makes addrs the answer for host, and removes an error set before. With
// no addresses the host is unknown.
func (r *Resolver) Set(host string, addrs ...netip.Addr) {
	r.set(host, answer{addrs: append([]netip.Addr(nil), addrs...)})
}

// SetError makes every look-up of host fail with err. Nil makes the host
// unknown.
func (r *Resolver) SetError(host string, err error) {
	r.set(host, answer{err: err})
}

func (r *Resolver) set(host string, a answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.hosts == nil {
		r.hosts = make(map[string]answer)
	}
	r.hosts[hostKey(host)] = a
}

// SetDelay makes every look-up take d.
func (r *Resolver) SetDelay(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.delay = d
}

// Lookups returns how many look-ups were made since the last Reset.
func (r *Resolver) Lookups() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lookups
}

// LookupsOf returns how many look-ups of host were made since the last Reset.
func (r *Resolver) LookupsOf(host string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.perHost[hostKey(host)]
}

// Reset sets the counts to zero. Answers stay.
func (r *Resolver) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lookups, r.perHost = 0, nil
}

// LookupNetIP answers like net.Resolver: network is "ip", "ip4" or "ip6", an IP
// literal is its own answer and no look-up, and an unknown host is a
// *net.DNSError whose IsNotFound is true. A look-up counts when it starts.
func (r *Resolver) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, nil
	}
	key := hostKey(host)
	r.mu.Lock()
	a, delay := r.hosts[key], r.delay
	r.lookups++
	if r.perHost == nil {
		r.perHost = make(map[string]int)
	}
	r.perHost[key]++
	r.mu.Unlock()

	if err := sleep(ctx, delay); err != nil {
		return nil, &net.DNSError{
			Err: err.Error(), Name: host, UnwrapErr: err,
			IsTimeout: err == context.DeadlineExceeded,
		}
	}
	if a.err != nil {
		return nil, a.err
	}
	var addrs []netip.Addr
	for _, addr := range a.addrs {
		if network == "ip4" && !addr.Is4() || network == "ip6" && !addr.Is6() {
			continue
		}
		addrs = append(addrs, addr)
	}
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return addrs, nil
}

func hostKey(host string) string {
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// sleep waits for d or the end of ctx, whose error it then returns.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
