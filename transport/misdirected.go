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

// Outcome is a stable word that tells what is done about a misdirected request:
// whether it is sent again, and if not, why the caller gets the answer.
type Outcome string

const (
	OutcomeRetried Outcome = "retried"      // it is sent again, on another connection
	OutcomeFresh   Outcome = "fresh"        // not: the connection was dialed for it
	OutcomeAgain   Outcome = "again"        // not: it has been sent again once
	OutcomeKnown   Outcome = "known"        // not: a connection dialed for the host has answered the same lately
	OutcomeBody    Outcome = "body-is-gone" // not: its body was read and cannot be had again
)

// MisdirectedError is the error of a request that was misdirected and that
// should have been sent again, but could not: its context ended, the dial
// failed, or the second attempt did. The first response is gone by then.
type MisdirectedError struct {
	Misdirected Misdirected // the first response
	Err         error       // what became of the second attempt
}

func (e *MisdirectedError) Error() string {
	m := &e.Misdirected
	return fmt.Sprintf("h2coalesce: %s answered %d %s on the connection of %s at %v, and sending the request again failed: %v",
		m.Host, m.Status, http.StatusText(m.Status), m.ConnHost, m.RemoteAddr, e.Err)
}

// Unwrap returns Err.
func (e *MisdirectedError) Unwrap() error { return e.Err }

// Timeout reports whether Err is a timeout, as net.Error has it.
func (e *MisdirectedError) Timeout() bool {
	t, ok := e.Err.(interface{ Timeout() bool })
	return ok && t.Timeout()
}
