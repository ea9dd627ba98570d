package coalesce_test

import (
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

func memoryKey() coalesce.MemoryKey {
	return coalesce.MemoryKey{
		Host: "b.example.com", Port: 443, Partition: "p", Fingerprint: [32]byte{1},
		RemoteAddr: netip.MustParseAddrPort("192.0.2.9:443"),
	}
}

func TestM3_MemoryKey(t *testing.T) {
	m := coalesce.NewMemory(0)
	m.Add(memoryKey(), now.Add(time.Minute))
	if !m.Has(memoryKey(), now) {
		t.Fatal("forgotten")
	}
	mapped := memoryKey()
	mapped.RemoteAddr = netip.MustParseAddrPort("[::ffff:192.0.2.9]:443")
	if !m.Has(mapped, now) {
		t.Error("an IPv4-mapped peer is another one")
	}
	turned := coalesce.NewMemory(0)
	turned.Add(mapped, now.Add(time.Minute))
	if !turned.Has(memoryKey(), now) {
		t.Error("an IPv4-mapped peer is another one if it comes first")
	}
	for name, change := range map[string]func(*coalesce.MemoryKey){
		"host":        func(k *coalesce.MemoryKey) { k.Host = "c.example.com" },
		"port":        func(k *coalesce.MemoryKey) { k.Port = 8443 },
		"partition":   func(k *coalesce.MemoryKey) { k.Partition = "" },
		"certificate": func(k *coalesce.MemoryKey) { k.Fingerprint[31] = 1 },
		"address":     func(k *coalesce.MemoryKey) { k.RemoteAddr = netip.MustParseAddrPort("192.0.2.10:443") },
		"remote port": func(k *coalesce.MemoryKey) { k.RemoteAddr = netip.MustParseAddrPort("192.0.2.9:444") },
	} {
		k := memoryKey()
		change(&k)
		if m.Has(k, now) {
			t.Errorf("another %s is not told apart", name)
		}
	}
}

func TestM3_MemoryExpires(t *testing.T) {
	m := coalesce.NewMemory(0)
	k := memoryKey()
	m.Add(k, now.Add(time.Minute))
	if !m.Has(k, now.Add(time.Minute-1)) {
		t.Error("forgotten too early")
	}
	if m.Has(k, now.Add(time.Minute)) || m.Len() != 0 {
		t.Error("remembered past its time")
	}
	m.Add(k, now.Add(time.Minute))
	m.Add(k, now.Add(time.Hour))
	if !m.Has(k, now.Add(time.Minute)) || m.Len() != 1 {
		t.Error("a later Add does not replace the time")
	}
}

func TestM3_MemoryIsBounded(t *testing.T) {
	for _, tt := range []struct{ size, want int }{{3, 3}, {0, 4096}, {-1, 4096}} {
		m := coalesce.NewMemory(tt.size)
		first := memoryKey()
		m.Add(first, now.Add(time.Hour))
		for i := range 3 * tt.want {
			k := memoryKey()
			k.Host = strconv.Itoa(i) + ".example.com"
			m.Add(k, now.Add(time.Hour))
			if !m.Has(first, now) { // asked for, hence not the least recently used
				t.Fatalf("size %d: a key in use is forgotten", tt.size)
			}
		}
		if m.Len() != tt.want {
			t.Errorf("size %d: %d keys; want %d", tt.size, m.Len(), tt.want)
		}
	}
}

func TestM3_MemoryConcurrent(t *testing.T) {
	m := coalesce.NewMemory(16)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 200 {
				k := memoryKey()
				k.Port = (g + i) % 32
				m.Add(k, now.Add(time.Duration(i%2)*time.Hour))
				m.Has(k, now)
				if n := m.Len(); n > 16 {
					t.Errorf("%d keys", n)
				}
			}
		})
	}
	wg.Wait()
}

func TestMemoryHasAllocatesNothing(t *testing.T) {
	m, k := coalesce.NewMemory(0), memoryKey()
	m.Add(k, now.Add(time.Hour))
	if n := testing.AllocsPerRun(100, func() { m.Has(k, now) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
