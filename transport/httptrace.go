package transport

import (
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"

	"github.com/h2coalesce/h2coalesce/pool"
)

// clientTrace fires the hooks that the engine leaves to its user. A nil one
// fires none.
type clientTrace httptrace.ClientTrace

func traceOf(req *http.Request) *clientTrace {
	return (*clientTrace)(httptrace.ContextClientTrace(req.Context()))
}

func (t *clientTrace) getConn(u *url.URL) {
	if t == nil || t.GetConn == nil {
		return
	}
	if host, port, ok := hostPort(u); ok {
		t.GetConn(net.JoinHostPort(host, strconv.Itoa(port)))
	}
}

func (t *clientTrace) gotConn(l *pool.Lease) {
	if t == nil || t.GotConn == nil {
		return
	}
	reused, idle := l.Reused()
	t.GotConn(httptrace.GotConnInfo{
		Conn:     connOf(l).NetConn(),
		Reused:   reused,
		WasIdle:  reused && idle > 0,
		IdleTime: idle,
	})
}
