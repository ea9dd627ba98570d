package integration

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
)

// logged is a line of a server's access log. A field that the server does not
// log is zero.
type logged struct {
	conn   int // number of the connection, or the client's port on it
	nth    int // which of the connection's requests it is, from 1
	addr   string
	sni    string // without the domain
	host   string // without the domain
	method string
	status int
}

func (l logged) String() string {
	return fmt.Sprintf("%s %s on connection %d (SNI %s): %d", l.method, l.host, l.conn, l.sni, l.status)
}

// accessLog is the log of a server: a line for each request.
type accessLog struct {
	read  func() (string, error)            // all of it so far; the last line may not be whole
	parse func(line string) (logged, error) // nil: parseFields
}

// log returns the requests that the server has answered, once there are want.
// A line is written after the answer is sent.
func (a accessLog) log(t *testing.T, want int) []logged {
	t.Helper()
	parse := a.parse
	if parse == nil {
		parse = parseFields
	}
	var lines []logged
	eventually(t, func() error {
		lines = nil
		text, err := a.read()
		if err != nil {
			return err
		}
		for line := range strings.Lines(text) {
			l, err := parse(line)
			if err != nil {
				return fmt.Errorf("line %q: %w", line, err)
			}
			lines = append(lines, l)
		}
		if len(lines) < want {
			return fmt.Errorf("the server has logged %d requests, want %d", len(lines), want)
		}
		return nil
	})
	if len(lines) != want {
		t.Fatalf("the server has logged %d requests, want %d:\n%v", len(lines), want, lines)
	}
	return lines
}

// parseFields parses what most servers can be told to write:
//
//	CONNECTION NTH ADDRESS SNI HOST METHOD STATUS PROTOCOL
func parseFields(line string) (logged, error) {
	var l logged
	var proto string
	_, err := fmt.Sscan(line, &l.conn, &l.nth, &l.addr, &l.sni, &l.host, &l.method, &l.status, &proto)
	if err == nil {
		err = expectHTTP2(proto)
	}
	l.sni, l.host = short(l.sni), short(withoutPort(l.host))
	return l, err
}

func expectHTTP2(proto string) error {
	if proto != "HTTP/2.0" {
		return fmt.Errorf("the protocol is %s", proto)
	}
	return nil
}

func withoutPort(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return host
}

// logFile reads a log that the server writes to a file in its directory.
func (s *server) logFile(name string) func() (string, error) {
	return func() (string, error) {
		text, err := os.ReadFile(s.file(name))
		return string(text), err
	}
}

// conns returns how many connections carried the requests.
func conns(lines []logged) int {
	seen := make(map[int]bool)
	for _, l := range lines {
		seen[l.conn] = true
	}
	return len(seen)
}

// count returns how many requests to a host were answered with a status.
func count(lines []logged, host string, status int) int {
	n := 0
	for _, l := range lines {
		if l.host == host && l.status == status {
			n++
		}
	}
	return n
}
