package transport

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/h2coalesce/h2coalesce/internal/dial"
)

// defaultBase returns what a nil Transport.Base stands for.
func defaultBase() *http.Transport {
	if t, ok := http.DefaultTransport.(*http.Transport); ok {
		return t
	}
	return &http.Transport{Proxy: http.ProxyFromEnvironment}
}

// partitionsKept bounds the partitions whose HTTP/1.1 connections are kept.
const partitionsKept = 64

// bases are net/http transports for what is not the pool's: plain HTTP,
// proxies, hosts that speak HTTP/1.1, and requests that end their connection.
// Each partition has its own, since net/http knows no partitions.
type bases struct {
	config  *http.Transport
	dialTLS func(ctx context.Context, network, addr string) (net.Conn, error)

	mu  sync.Mutex // guards lru
	lru *simplelru.LRU[string, *http.Transport]
}

func (b *bases) of(partition string) *http.Transport {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lru == nil {
		b.lru, _ = simplelru.NewLRU(partitionsKept, func(_ string, t *http.Transport) { t.CloseIdleConnections() })
	}
	if t, ok := b.lru.Get(partition); ok {
		return t
	}
	t := b.config.Clone()
	t.DialTLSContext = b.dialTLS
	if c := t.TLSClientConfig; c != nil { // used for what is behind a proxy
		c.ClientSessionCache = dial.PartitionSessions(c.ClientSessionCache, partition)
	}
	if t.Proxy != nil {
		t.Proxy = askOnce(t.Proxy)
	}
	// What http2.ConfigureTransport has put into Base leads to a connection
	// pool of its own, which Base and all its clones would share: across
	// partitions, and across proxies.
	if t.TLSNextProto["h2"] != nil {
		delete(t.TLSNextProto, "h2")
		delete(t.TLSNextProto, "unencrypted_http2")
		if len(t.TLSNextProto) == 0 {
			t.TLSNextProto = nil
		}
		if t.Protocols == nil {
			t.Protocols = new(http.Protocols)
			t.Protocols.SetHTTP1(true)
			t.Protocols.SetHTTP2(true)
		}
	}
	if t.Protocols == nil && t.TLSNextProto == nil {
		t.ForceAttemptHTTP2 = true
	}
	b.lru.Add(partition, t)
	return t
}

// askOnce returns a Proxy that repeats what proxy has answered for a request
// before, if it was asked. Otherwise a proxy function whose answers vary could
// send a request to the origin that was meant for the proxy.
func askOnce(proxy func(*http.Request) (*url.URL, error)) func(*http.Request) (*url.URL, error) {
	return func(req *http.Request) (*url.URL, error) {
		if d, ok := req.Context().Value(directiveKey{}).(*directive); ok && d.proxyAsked {
			return d.proxy, nil
		}
		return proxy(req)
	}
}

func (b *bases) closeIdle() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lru != nil {
		for _, t := range b.lru.Values() {
			t.CloseIdleConnections()
		}
	}
}
