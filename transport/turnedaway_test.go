package transport_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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

// turnsAway is a server that wants a client certificate on its first connections.
func turnsAway(first int32) map[string]lab.Server {
	servers := plain()
	s := servers["127.0.0.1"]
	s.TLS = func(c *tls.Config) {
		strict := c.Clone()
		strict.ClientAuth = tls.RequireAnyClientCert
		var handshakes atomic.Int32
		c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			if handshakes.Add(1) <= first {
				return strict, nil
			}
			return nil, nil
		}
	}
	servers["127.0.0.1"] = s
	return servers
}

// late has a request sent when its connection's server has had time to end it.
func late(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { time.Sleep(time.Second) }})
}

// A request whose connection has ended before SETTINGS, and before it was sent,
// has one more dialed, and no third.
func TestP6_OneMoreConnectionIsDialed(t *testing.T) {
	for first, want := range map[int32]int{1: 2, 2: 2, 100: 2} {
		t.Run(fmt.Sprint(first), func(t *testing.T) {
			bubble(t, turnsAway(first), func(r *rig) {
				a := r.do(r.request(late(r.t.Context()), http.MethodPost, "a.example.com", nil))
				if (a.status == http.StatusOK) != (first == 1) {
					t.Errorf("got %+v", a)
				}
				if n := r.Record().Accepted(); n != want {
					t.Errorf("%d connections, want %d", n, want)
				}
			})
		})
	}
}

// The same for a request that waits for the SETTINGS, behind one that is sent.
func TestP6_OneMoreConnectionForTheNextInLine(t *testing.T) {
	bubble(t, turnsAway(1), func(r *rig) {
		ctx := late(r.t.Context())
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if a := r.do(r.request(ctx, http.MethodPost, "a.example.com", nil)); a.status != http.StatusOK {
					t.Errorf("got %+v", a)
				}
			})
		}
		wg.Wait()
		if n := r.Record().Accepted(); n != 2 {
			t.Errorf("%d connections, want one more than the first", n)
		}
	})
}

// The same where the connection has ended before so much as the client's preface
// could be written.
func TestP6_OneMoreConnectionWithoutAPreface(t *testing.T) {
	for first, want := range map[int]int{1: 2, 2: 2, 100: 2} {
		t.Run(fmt.Sprint(first), func(t *testing.T) {
			bubble(t, plain(), func(r *rig) {
				var dialed net.Conn
				r.tr.Base.DialContext = func(ctx context.Context, network, addr string) (c net.Conn, err error) {
					dialed, err = r.DialContext(ctx, network, addr)
					return dialed, err
				}
				handshakes := 0
				ctx := httptrace.WithClientTrace(r.t.Context(), &httptrace.ClientTrace{TLSHandshakeDone: func(tls.ConnectionState, error) {
					if handshakes++; handshakes <= first {
						dialed.Close()
					}
				}})
				a := r.do(r.request(ctx, http.MethodPost, "a.example.com", nil))
				if (a.status == http.StatusOK) != (first == 1) {
					t.Errorf("got %+v", a)
				}
				if n := r.Record().Accepted(); n != want {
					t.Errorf("%d connections, want %d", n, want)
				}
			})
		})
	}
}
