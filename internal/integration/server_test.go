package integration

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/template"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/internal/lab"
	"github.com/h2coalesce/h2coalesce/transport"
)

// The addresses that a server listens on, at one port.
const (
	addr1 = "127.0.0.1"
	addr2 = "127.0.0.2"
)

// server is what the tests need of any server: where it is, and a client's
// trust in it. Each answers a request with "host=HOST" and more, of which get
// checks the host, and at both addresses has a certificate for a.example.test,
// by which it is known to be ready.
type server struct {
	dir      string
	port     int
	process  *process
	ca       *lab.CA
	resolver lab.Resolver
}

// newServer prepares a directory with the authority's certificate in it.
func newServer(t *testing.T) *server {
	t.Helper()
	ca, err := lab.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{dir: t.TempDir(), ca: ca}
	if err := os.WriteFile(s.caFile(), ca.PEM(), 0o644); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *server) file(name string) string { return filepath.Join(s.dir, name) }

func (s *server) caFile() string { return s.file("ca.pem") }

// issue writes a certificate for names, and its key, to files in the directory.
func (s *server) issue(t *testing.T, certFile, keyFile string, names ...string) {
	t.Helper()
	cert, err := s.ca.Issue(names)
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.WritePEM(cert, s.file(certFile), s.file(keyFile)); err != nil {
		t.Fatal(err)
	}
}

// start chooses a port, has configure write it where the program reads it, and
// runs the program.
func (s *server) start(t *testing.T, configure func(), path string, args ...string) {
	t.Helper()
	// The port is free when it is chosen, but may be taken before the server binds.
	for try := 0; ; try++ {
		s.port = freePort(t)
		configure()
		var err error
		s.process, err = startProcess(t, s.ready, path, args...)
		if err == nil {
			return
		}
		if try == 4 || !strings.Contains(strings.ToLower(err.Error()), "address already in use") {
			t.Fatal(err)
		}
	}
}

func (s *server) configFile() string { return s.file("config") }

// configure writes the configuration file, in which fields are set besides Dir,
// Port, Addr1, Addr2 and Root.
func (s *server) configure(t *testing.T, config *template.Template, fields map[string]any) {
	t.Helper()
	fields["Dir"], fields["Port"], fields["Addr1"], fields["Addr2"] = s.dir, s.port, addr1, addr2
	fields["Root"] = os.Getuid() == 0
	var text bytes.Buffer
	if err := config.Execute(&text, fields); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.configFile(), text.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// freePort returns a port that is free on both addresses.
func freePort(t *testing.T) int {
	t.Helper()
	var err error
	for range 16 {
		var first, second net.Listener
		if first, err = net.Listen("tcp", addr1+":0"); err != nil {
			t.Fatal(err)
		}
		port := first.Addr().(*net.TCPAddr).Port
		second, err = net.Listen("tcp", net.JoinHostPort(addr2, strconv.Itoa(port)))
		_ = first.Close()
		if err == nil {
			_ = second.Close()
			return port
		}
	}
	t.Fatal(err)
	return 0
}

// ready makes a TLS handshake with both addresses, which proves that the
// server there is this one: no other has a certificate of the test's.
func (s *server) ready(ctx context.Context) error {
	d := tls.Dialer{Config: &tls.Config{RootCAs: s.ca.Pool(), ServerName: "a.example.test"}}
	for _, addr := range []string{addr1, addr2} {
		c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(addr, strconv.Itoa(s.port)))
		if err != nil {
			return err
		}
		_ = c.Close()
	}
	return nil
}

// transport returns a Transport that trusts s and knows the hosts that host sets.
func (s *server) transport(t *testing.T) *transport.Transport {
	tr := &transport.Transport{
		Base:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.ca.Pool()}},
		Resolver: &s.resolver,
	}
	t.Cleanup(func() { _ = tr.Close() })
	return tr
}

// matching is transport with a Policy that shares on such evidence.
func (s *server) matching(t *testing.T, match coalesce.Match) *transport.Transport {
	tr := s.transport(t)
	tr.Policy.Match = match
	return tr
}

// host gives names under example.test an address.
func (s *server) host(addr string, names ...string) {
	for _, name := range names {
		s.resolver.Set(full(name), netip.MustParseAddr(addr))
	}
}

// showLogs shows the log files in the directory if the test has failed.
func (s *server) showLogs(t *testing.T) {
	if !t.Failed() {
		return
	}
	for _, name := range []string{"error.log", "access.log"} {
		if text, err := os.ReadFile(s.file(name)); !errors.Is(err, fs.ErrNotExist) {
			t.Logf("%s: %v\n%s", name, err, text)
		}
	}
}

// url returns the URL of a name under example.test.
func (s *server) url(name string) string {
	return fmt.Sprintf("https://%s:%d/", full(name), s.port)
}

// get fetches a host of s and expects a status.
func (s *server) get(t *testing.T, rt http.RoundTripper, name string, want int) {
	t.Helper()
	status, body, err := fetch(rt, http.MethodGet, s.url(name), "")
	if err != nil {
		t.Fatalf("GET %s: %v", name, err)
	}
	if status != want || !strings.Contains(body, "host="+full(name)+" ") {
		t.Fatalf("GET %s: status %d, body %q; want %d", name, status, body, want)
	}
}

// burst sends requests to hosts in turn, all at once.
func (s *server) burst(t *testing.T, rt http.RoundTripper, requests int, names []string) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range requests {
		wg.Go(func() {
			name := names[i%len(names)]
			status, body, err := fetch(rt, http.MethodGet, s.url(name), "")
			if err != nil || status != 200 {
				t.Errorf("request %d, to %s: status %d, body %q, error %v", i, name, status, body, err)
			}
		})
	}
	wg.Wait()
}

// fetch sends a request with a body, or without one if body is empty, and
// returns the status and the response's body.
func fetch(rt http.RoundTripper, method, url, body string) (int, string, error) {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	return send(rt, req)
}

// send returns the status and the body of the response to a request.
func send(rt http.RoundTripper, req *http.Request) (int, string, error) {
	res, err := rt.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, string(text), err
}

const domain = ".example.test"

// full returns the host that a test calls name.
func full(name string) string { return name + domain }

// short is full's inverse.
func short(host string) string { return strings.TrimSuffix(host, domain) }
