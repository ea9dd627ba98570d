package transport

import (
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/h2coalesce/h2coalesce/pool"
)

// protocols reports whether t permits HTTP/2, and the ALPN protocols to offer.
// t is a clone, in which a TLSNextProto that net/http has filled in by itself
// is nil again.
func protocols(t *http.Transport) (http2 bool, alpn []string) {
	http1 := true
	switch {
	case t.Protocols != nil:
		http1, http2 = t.Protocols.HTTP1(), t.Protocols.HTTP2()
	case t.TLSNextProto != nil:
		http2 = t.TLSNextProto["h2"] != nil
	default:
		http2 = true
	}
	if http2 {
		alpn = append(alpn, "h2")
	}
	if t.TLSClientConfig != nil {
		for _, p := range t.TLSClientConfig.NextProtos {
			if p != "h2" && p != "http/1.1" {
				alpn = append(alpn, p)
			}
		}
	}
	if http1 {
		alpn = append(alpn, "http/1.1")
	}
	return http2, alpn
}

const (
	protocolsKept = 1024
	protocolTTL   = 10 * time.Minute
)

// protocolMemory remembers the hosts that did not choose HTTP/2, so that their
// requests go to net/http at once (P9).
type protocolMemory struct {
	mu  sync.Mutex // guards lru
	lru *simplelru.LRU[protocolKey, time.Time]
}

type protocolKey struct {
	partition, host string
	port            int
}

func (m *protocolMemory) add(r pool.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lru == nil {
		m.lru, _ = simplelru.NewLRU[protocolKey, time.Time](protocolsKept, nil)
	}
	// The host may be a part of a URL, which is not to live on in here.
	key := protocolKey{strings.Clone(r.Partition), strings.Clone(r.Host), r.Port}
	m.lru.Add(key, time.Now().Add(protocolTTL))
}

func (m *protocolMemory) has(r pool.Request) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lru == nil {
		return false
	}
	until, ok := m.lru.Get(protocolKey{r.Partition, r.Host, r.Port})
	return ok && time.Now().Before(until)
}

func (m *protocolMemory) forget(req *http.Request, opts *options) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if host, port, ok := hostPort(req.URL); ok && m.lru != nil {
		m.lru.Remove(protocolKey{opts.partition, host, port})
	}
}
