package h2

import (
	"net"
	"net/http"
	"time"
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

// SetClock has c find itself d later, or earlier, by the wall clock.
func (c *Conn) SetClock(d time.Duration) {
	c.o.lastRead.Add(-int64(d))
}

// Pings returns how many PINGs c has sent since its server's last answer.
func (c *Conn) Pings() int {
	c.prober.mu.Lock()
	defer c.prober.mu.Unlock()
	return c.prober.pings
}
