package h2

import (
	"net"
	"net/http"
)

// Observe returns c as the engine would read it.
func Observe(c net.Conn, ev Events) net.Conn {
	nc, _ := observe(c, ev, minReadFrameSize)
	return nc
}

// NewBareConn is NewConn without the observing connection.
func (e *Engine) NewBareConn(c net.Conn) (http.RoundTripper, error) {
	//lint:ignore SA1019 see engine.go
	return e.tr.NewClientConn(c)
}
