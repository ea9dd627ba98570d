package h2coalesce_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/internal/lab"
	"github.com/h2coalesce/h2coalesce/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a client and the servers that it talks to.
type world struct {
	*lab.Lab
	t         *testing.T
	transport *transport.Transport
	client    *http.Client
}

// newWorld starts servers, by IP address, and makes a client that trusts and
// finds them.
func newWorld(t *testing.T, servers map[string]lab.Server) *world {
	t.Helper()
	l, err := lab.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	for ip, s := range servers {
		if err := l.Serve(ip, s); err != nil {
			t.Fatal(err)
		}
	}
	w := &world{Lab: l, t: t}
	w.transport = &transport.Transport{
		Base:     &http.Transport{TLSClientConfig: l.TLSConfig()},
		Resolver: l.Resolver(),
		// A handshake can take longer than JoinWait's default on a busy machine.
		Policy: coalesce.Policy{JoinWait: time.Minute},
	}
	w.client = &http.Client{Transport: w.transport}
	t.Cleanup(func() { w.transport.Close() })
	return w
}

// get fetches https://host/ and returns the number of the connection that the
// server answered on.
func (w *world) get(host string) string {
	w.t.Helper()
	return w.getContext(w.t.Context(), host)
}

func (w *world) getContext(ctx context.Context, host string) string {
	w.t.Helper()
	conn, err := w.try(ctx, host)
	if err != nil {
		w.t.Errorf("GET %s: %v", host, err)
	}
	return conn
}

func (w *world) try(ctx context.Context, host string) (conn string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.URL(host, "/"), nil)
	if err != nil {
		return "", err
	}
	res, err := w.client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %s", res.Status)
	}
	return res.Header.Get("X-Lab-Conn"), nil
}

// wantConns checks how many connections the servers have completed a handshake
// on.
func (w *world) wantConns(want int) {
	w.t.Helper()
	if got := w.Record().Handshakes(); got != want {
		w.t.Errorf("%d connections, want %d", got, want)
	}
}

func (w *world) statuses() (statuses []int) {
	for _, r := range w.Record().Requests() {
		statuses = append(statuses, r.Status)
	}
	return statuses
}
