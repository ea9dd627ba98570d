package integration

import (
	"fmt"
	"strings"
	"testing"
)

// startMisdirectingNode starts a Node (20.20.2), which leaves 421 to the
// handler: that compares the host with SNI if it is b, and reads nothing of the
// body. Node then resets the stream with NO_ERROR.
func startMisdirectingNode(t *testing.T) *misdirecting {
	n := startNode(t, listener{Misdirected: []string{full("b")}})
	return &misdirecting{server: n.server, accessLog: accessLog{read: n.fields}}
}

// fields returns the log as parseFields reads it.
func (n *node) fields() (string, error) {
	var text strings.Builder
	sessions := make(map[string]string) // address and SNI, by number
	for _, line := range n.log() {
		kind, rest, _ := strings.Cut(line, " ")
		number, rest, _ := strings.Cut(rest, ": ")
		if kind == "session" {
			sessions[number] = rest
		} else {
			host, status, _ := strings.Cut(rest, " ")
			fmt.Fprintln(&text, number, 0, sessions[number], host, "-", status, "HTTP/2.0")
		}
	}
	return text.String(), nil
}

func TestNode_M1_HostIsNotSNI(t *testing.T) { testMisdirected(t, startMisdirectingNode) }
