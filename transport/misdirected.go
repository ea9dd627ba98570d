package transport

import (
	"fmt"
	"net/http"
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
