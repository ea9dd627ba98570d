package transport

import (
	"context"
	"net"
	"net/http"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
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
	if t.Protocols == nil && t.TLSNextProto == nil {
		t.ForceAttemptHTTP2 = true
	}
	b.lru.Add(partition, t)
	return t
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
