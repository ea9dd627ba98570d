package soak

import (
	"fmt"
	"maps"
	"net"
	"runtime"
	"slices"
	"testing"

	"go.uber.org/goleak"
)

// inventory is what the process holds.
type inventory struct {
	goroutines goleak.Option
	files      map[string]string // what they are, by descriptor; nil if that is unknown
}

// takeInventory notes what there is before the run.
func takeInventory(t *testing.T) inventory {
	t.Helper()
	// The first socket of a process opens files that stay: the poller's.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	return inventory{goleak.IgnoreCurrent(), openFiles(t)}
}

// check looks whether anything was added.
func (before inventory) check(t *testing.T) {
	t.Helper()
	if err := goleak.Find(before.goroutines); err != nil {
		t.Error(err)
	}
	after := openFiles(t)
	for _, fd := range slices.Sorted(maps.Keys(after)) {
		if before.files[fd] != after[fd] {
			t.Errorf("file %s is open after the run: %s", fd, after[fd])
		}
	}
}

// heapSlack is how much more may be in use after the run than after the warm-up.
// At both times no connection is open. What differs is bounded: addresses, 421s
// and TLS sessions remembered, less than 1 MiB for 200 hosts in three
// partitions. A leak of 1 KiB a request exceeds it within some thousand
// requests, one of 40 KiB, an x/net connection, within a hundred connections.
const heapSlack = 2 << 20

// checkHeap compares what is in use with what was.
func checkHeap(t *testing.T, before uint64) {
	t.Helper()
	// Not at once: x/net holds on to a connection, some 80 KiB, for as long as
	// SendPingTimeout after its end, and until 5 s after its last request.
	var after uint64
	eventually(t, func() string {
		if after = heapInUse(); after <= before+heapSlack {
			return ""
		}
		return fmt.Sprintf("%d KiB are in use, %d KiB were after the warm-up", after>>10, before>>10)
	})
	t.Logf("heap in use: %d KiB after the warm-up, %d KiB after the run", before>>10, after>>10)
}

// heapInUse returns the bytes that are reachable.
func heapInUse() uint64 {
	// The first collection empties the sync.Pools into their victims, and the
	// second those.
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
