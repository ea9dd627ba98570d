package integration

import (
	"crypto/tls"
	"maps"
	"testing"
	"text/template"

	"github.com/h2coalesce/h2coalesce/internal/lab"
	"github.com/h2coalesce/h2coalesce/transport"
)

// misdirecting is a server that answers 421 to a request for b on a connection
// that was opened for a, and 200 on one that was opened for b. The same
// wildcard certificate is shown for all hosts.
type misdirecting struct {
	*server
	accessLog
	strict   bool              // c, too, is answered 421 on a connection of a; else 200
	identity []tls.Certificate // of the client
}

// newMisdirecting prepares a server that logs to access.log in its directory.
func newMisdirecting(t *testing.T) *misdirecting {
	t.Helper()
	m := &misdirecting{server: newServer(t)}
	m.accessLog.read = m.logFile("access.log")
	m.issue(t, "cert.pem", "key.pem", full("*"))
	t.Cleanup(func() { m.showLogs(t) })
	return m
}

// identify gives the client a certificate.
func (m *misdirecting) identify(t *testing.T) {
	t.Helper()
	cert, err := m.ca.Issue([]string{full("client")}, lab.ClientAuth())
	if err != nil {
		t.Fatal(err)
	}
	m.identity = []tls.Certificate{cert}
}

// transport returns a Transport like server's that can identify itself if asked.
func (m *misdirecting) transport(t *testing.T) *transport.Transport {
	tr := m.server.transport(t)
	tr.Base.TLSClientConfig.Certificates = m.identity
	return tr
}

// proxy runs a program that passes on to a backend what it does not answer
// itself. Its configuration is given the Hosts, what B differs in, and the
// Backend.
func (m *misdirecting) proxy(t *testing.T, config *template.Template, b, path string, args ...string) {
	t.Helper()
	fields := map[string]any{"Hosts": []string{"a", "b", "c"}, "B": b, "Backend": startBackend(t)}
	m.start(t, func() { m.configure(t, config, maps.Clone(fields)) }, path, args...)
}
