package transport_test

import (
	"crypto/tls"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/h2coalesce/h2coalesce/internal/lab"
	"github.com/h2coalesce/h2coalesce/transport"
)

// A server that wants a client certificate turns the client away after the
// handshake, as that is in TLS 1.3. It is asked once more at the most.
func TestP6_AServerThatTurnsTheClientAway(t *testing.T) {
	said := 0
	for range 50 { // the alert races with the request
		r := newRig(t, map[string]lab.Server{"127.0.0.1": {Names: []string{"*.example.com"}, ClientAuth: tls.RequireAnyClientCert}})
		a := r.get("a.example.com")
		if a.err == nil {
			t.Errorf("got %+v", a)
		} else if strings.Contains(a.err.Error(), "certificate required") {
			said++
		}
		if n := r.Record().Accepted(); n > 2 {
			t.Fatalf("%d connections for one request, which failed with %v", n, a.err)
		}
		r.tr.Close()
	}
	if said == 0 {
		t.Error("no caller has learned what the server has said")
	}
}

// The same after a 421: the error tells both.
func TestM8_TheRetryIsTurnedAway(t *testing.T) {
	servers := shy(nil)
	s := servers["127.0.0.1"]
	s.TLS = func(c *tls.Config) {
		strict := c.Clone()
		strict.ClientAuth = tls.RequireAnyClientCert
		c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if hello.ServerName == "b.example.com" {
				return strict, nil
			}
			return nil, nil
		}
	}
	servers["127.0.0.1"] = s
	r := newRig(t, servers)
	r.ok("a.example.com")
	a := r.get("b.example.com")
	m, ok := errors.AsType[*transport.MisdirectedError](a.err)
	if !ok || m.Misdirected.Status != http.StatusMisdirectedRequest || m.Err == nil {
		t.Errorf("got %+v, want the 421 and what became of the retry", a)
	}
	if n := r.Record().Accepted(); n > 3 {
		t.Errorf("%d connections in all", n)
	}
}
