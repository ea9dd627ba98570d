package transport

import (
	"fmt"
	"net/http"
	"net/netip"
)

// Misdirected describes a misdirected request (RFC 9110 §15.5.20).
type Misdirected struct {
	Host       string         // the request's host: A-labels, lower case
	Status     int            // 421, or what Transport.IsMisdirected took for it
	Conn       uint64         // the number of the connection that it was sent on
	ConnHost   string         // the host that the connection was dialed for
	RemoteAddr netip.AddrPort // the address that the connection is connected to
	Shared     bool           // the connection is another host's
	Outcome    Outcome        // what is done about it
	Retried    bool           // Outcome is OutcomeRetried
}

// Outcome is a stable word that tells what was done about a misdirected
// request, and if nothing was, why.
type Outcome string

const (
	OutcomeRetried Outcome = "retried"      // it is sent again, on another connection
	OutcomeFresh   Outcome = "fresh"        // the connection was dialed for this very request
	OutcomeAgain   Outcome = "again"        // it was sent again already
	OutcomeKnown   Outcome = "known"        // a fresh connection was no better, not long ago
	OutcomeBody    Outcome = "body-is-gone" // its body cannot be sent again
)

// MisdirectedError tells that a request was misdirected and could not be sent
// again. The response that said so is gone; it cannot be read any more.
type MisdirectedError struct {
	Misdirected Misdirected // the response
	Err         error       // why the request could not be sent again
}

func (e *MisdirectedError) Error() string {
	m := &e.Misdirected
	return fmt.Sprintf("h2coalesce: %s answered %d %s on the connection of %s at %v, and sending the request again failed: %v",
		m.Host, m.Status, http.StatusText(m.Status), m.ConnHost, m.RemoteAddr, e.Err)
}

// Unwrap returns why the request could not be sent again.
func (e *MisdirectedError) Unwrap() error { return e.Err }

// Timeout reports whether the request could not be sent again in time.
func (e *MisdirectedError) Timeout() bool {
	t, ok := e.Err.(interface{ Timeout() bool })
	return ok && t.Timeout()
}
