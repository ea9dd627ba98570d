package soak

import (
	"crypto/tls"
	"net"
	"sync"
	"time"
)

// hellos are the times at which handshakes under way have begun, by the
// client's address.
type hellos struct {
	mu sync.Mutex
	at map[string]time.Time
}

// hellosKept bounds the handshakes that may fail before all are forgotten.
const hellosKept = 1000

// noting returns choose, and notes when it is asked.
func (h *hellos) noting(choose certificate) certificate {
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		h.mu.Lock()
		if h.at == nil || len(h.at) > hellosKept {
			h.at = make(map[string]time.Time)
		}
		h.at[hello.Conn.RemoteAddr().String()] = time.Now()
		h.mu.Unlock()
		return choose(hello)
	}
}

// take returns when the handshake with a client has begun; the zero time if
// that was not noted.
func (h *hellos) take(client net.Addr) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := h.at[client.String()]
	delete(h.at, client.String())
	return at
}
