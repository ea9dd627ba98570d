package pool

import "time"

// Stats is a snapshot of a pool. The first four fields are what is there now,
// the others count since the pool was made.
type Stats struct {
	Conns   int // connections open, those that take no more requests included
	Idle    int // connections without a request
	Streams int // requests under way
	Waiting int // requests waiting for a connection

	Dials       uint64 // dials begun, those that failed included
	DialErrors  uint64 // those of Dials that failed; a server that chose HTTP/1.1 is no failure
	Reused      uint64 // requests sent on an open connection that was dialed for their host
	Shared      uint64 // requests sent on a connection that was dialed for another host
	Joined      uint64 // those of Shared that waited for that connection's handshake
	Misdirected uint64 // answers 421, and those that IsMisdirected takes for one
	Retried     uint64 // misdirected requests that were sent again
	Evicted     uint64 // connections closed to keep within MaxConns or MaxIdleConns
}

// ConnInfo describes one open connection.
type ConnInfo struct {
	ID         uint64 // counts from 1, in the order in which handshakes end
	Host       string // the host that it was dialed for: A-labels, lower case
	Port       int    // its port
	RemoteAddr string // the IP address and port that it is connected to; empty if unknown
	Partition  string // see transport.WithPartition

	Hosts     []string // the hosts whose requests it carries, sorted, its own included
	SANs      []string // what its certificate covers
	OriginSet []string // the origins that its ORIGIN frames list, its own included, sorted
	Excluded  []string // hosts that were answered 421 on it, sorted

	OriginSetSeen  bool // an ORIGIN frame was accepted, be it empty
	OriginsDropped int  // entries of ORIGIN frames that were left out, the server having sent too many
	Draining       bool // takes no new requests

	Streams    int // requests under way
	MaxStreams int // requests that it may carry at once; 1 until the server's SETTINGS arrive, for a second at most

	Opened   time.Time // end of the handshake
	LastUsed time.Time // when a request last began or ended on it
	Requests uint64    // requests sent on it
}
