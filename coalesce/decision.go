package coalesce

// Reason is a stable word that tells why a request went, or did not go, on a
// connection.
type Reason string

// What a connection was chosen for.
const (
	ReasonOwn    Reason = "own"    // an open connection that was dialed for the host
	ReasonShared Reason = "shared" // an open connection that was dialed for another host
	ReasonJoined Reason = "joined" // another host's connection, whose handshake the request waited for
	ReasonDialed Reason = "dialed" // a connection dialed for the host just now
)

// What kept a connection from being chosen.
const (
	ReasonDisabled          Reason = "disabled"           // MatchNever, WithoutCoalescing, or a Host header that names another host (C9, C12)
	ReasonPort              Reason = "port"               // another port (C1)
	ReasonPartition         Reason = "partition"          // another partition (C1)
	ReasonDraining          Reason = "draining"           // GOAWAY seen, past MaxAge, or closed (C2)
	ReasonFull              Reason = "full"               // no free stream, or MaxHostsPerConn reached (C2, P4)
	ReasonUnverified        Reason = "unverified"         // the chain, or VerifyConnection, does not vouch for the host (C3, C6)
	ReasonExpired           Reason = "expired"            // the certificate is not valid now (C4)
	ReasonNotCovered        Reason = "not-covered"        // the certificate does not name the host (C5)
	ReasonClientCertificate Reason = "client-certificate" // a client certificate was sent (C7)
	ReasonNotInOriginSet    Reason = "not-in-origin-set"  // ORIGIN frames leave the host out (C8)
	ReasonAddressMismatch   Reason = "address-mismatch"   // the host does not resolve to the connection's address (C9)
	ReasonMisdirected       Reason = "misdirected"        // the host was answered 421 there (C10)
	ReasonVetoed            Reason = "vetoed"             // Policy.Allow said no (C11)
	ReasonUnproven          Reason = "unproven"           // the request's body cannot be had twice, and the host was not answered there yet (M6)
)

// Decision tells which connection carries a request and why.
type Decision struct {
	Host       string    // the request's host: A-labels, lower case
	Conn       uint64    // the connection's number; 0 if it is not open yet
	ConnHost   string    // the host that the connection was dialed for, or is being dialed for if it would be joined; else empty if Conn is 0
	Shared     bool      // the connection was dialed for another host
	Reused     bool      // the connection was open before the request
	Reason     Reason    // own, shared, joined or dialed; disabled for what is not the pool's, see transport.Transport.Explain
	Considered []Verdict // the connections that were open before, oldest first
}

// Verdict is what the rules say of one open connection.
type Verdict struct {
	Conn     uint64 // the connection's number
	ConnHost string // the host that it was dialed for
	Reason   Reason // own or shared where it qualifies, else the first rule that stopped it
}
