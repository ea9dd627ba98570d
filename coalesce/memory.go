package coalesce

import (
	"crypto/sha256"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const defaultMemorySize = 4096

// MemoryKey is what a 421 was answered for: a host, and the server as the
// client can recognize it when it meets it again on a new connection.
type MemoryKey struct {
	Host        string // canonical
	Port        int
	Partition   string            // what one partition learned, another must not observe
	Fingerprint [sha256.Size]byte // the certificate's, see [Coverage.Fingerprint]
	RemoteAddr  netip.AddrPort    // the address that the connection is connected to
}

// Memory remembers which servers answered 421 for which hosts, so that a
// connection dialed anew to the same server is not tried again (M3, M5). It
// holds a fixed number of keys and forgets the one least recently used.
// It is safe for concurrent use.
type Memory struct {
	mu sync.Mutex // guards lru; held for map operations only
	// golang-lru's expirable cache would do the deadlines too, with a
	// goroutine that never ends.
	lru *simplelru.LRU[MemoryKey, time.Time]

	held atomic.Int64 // lru.Len(), to be read without mu
}

// NewMemory returns a Memory of size keys; of 4096 if size is not positive.
func NewMemory(size int) *Memory {
	if size <= 0 {
		size = defaultMemorySize
	}
	lru, err := simplelru.NewLRU[MemoryKey, time.Time](size, nil)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &Memory{lru: lru}
}

// Add remembers k until the given time, in place of what it remembered of k.
func (m *Memory) Add(k MemoryKey, until time.Time) {
	k = k.canonical()
	// The strings may be parts of a longer one, such as a URL with a token in
	// it, which must not live on in here.
	k.Host, k.Partition = strings.Clone(k.Host), strings.Clone(k.Partition)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lru.Add(k, until)
	m.held.Store(int64(m.lru.Len()))
}

// Has reports whether k is remembered at the time now. It does not allocate.
func (m *Memory) Has(k MemoryKey, now time.Time) bool {
	k = k.canonical()
	m.mu.Lock()
	defer m.mu.Unlock()
	until, ok := m.lru.Get(k)
	if ok && !now.Before(until) {
		m.lru.Remove(k)
		m.held.Store(int64(m.lru.Len()))
		return false
	}
	return ok
}

// Len returns the number of keys held; some may be past their time. It takes no
// lock.
func (m *Memory) Len() int { return int(m.held.Load()) }

// canonical makes one key of the forms in which a peer may be reported,
// depending on the kind of socket.
func (k MemoryKey) canonical() MemoryKey {
	k.RemoteAddr = netip.AddrPortFrom(CanonicalAddr(k.RemoteAddr.Addr()), k.RemoteAddr.Port())
	return k
}
