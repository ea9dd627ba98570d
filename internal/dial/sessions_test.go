package dial_test

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/h2coalesce/h2coalesce/internal/dial"
)

var errRefused = errors.New("refused by VerifyConnection")

// dialPlain connects as other code does that uses cfg, and returns the state
// when it has the tickets.
func dialPlain(t testing.TB, cfg *tls.Config, host string, addr netip.AddrPort) tls.ConnectionState {
	t.Helper()
	cfg = cfg.Clone()
	cfg.ServerName = host
	c, err := tls.Dial("tcp", addr.String(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	readGreeting(t, c)
	return c.ConnectionState()
}

// mustRefuse asserts that a Dial fails with errRefused.
func mustRefuse(t testing.TB, d *dial.Dialer, to dial.Target) {
	t.Helper()
	r, err := d.Dial(t.Context(), to)
	if err == nil {
		r.Conn.Close()
	}
	if err != errRefused {
		t.Errorf("error %v, want %v", err, errRefused)
	}
}

func TestC7_ResumedSession(t *testing.T) {
	// Who connects: this package or other code, both with the same cache.
	const (
		with         = "a client with a certificate"
		without      = "a client without"
		otherWith    = "other code with a certificate"
		otherWithout = "other code without"
		newKeys      = "the server's ticket keys change"
	)
	type step struct {
		who        string
		resumed    bool
		clientCert bool // of this package's result
	}
	scripts := []struct {
		name  string
		asks  bool // the server, for a certificate
		steps []step
	}{
		{"not asked for", false, []step{
			{with, false, false},
			{with, true, false}, // its ticket is marked too:
			{with, true, false},
			{without, true, false},
		}},
		{"none to send", true, []step{
			{without, false, false},
			{without, true, false},
			{with, true, false}, // a resuming server does not ask
			{with, true, false},
		}},
		{"sent", true, []step{
			{with, false, true},
			{with, true, true},
			{with, true, true},
		}},
		{"sent with another configuration", true, []step{
			{with, false, true},
			{without, true, true},
			{without, true, true},
		}},
		{"sent by other code", true, []step{
			{who: otherWith},
			{without, true, true},
			{without, true, true},
			{with, true, true},
		}},
		{"nobody knows that other code sent none", false, []step{
			{who: otherWithout},
			{without, true, true},
			{without, true, true},
			{with, true, true},
		}},
		{"continued by other code", true, []step{
			{without, false, false},
			{who: otherWithout, resumed: true},
			{without, true, true},
		}},
		{"rejected, had none", true, []step{
			{without, false, false},
			{who: newKeys},
			{with, false, true},
			{without, true, true},
		}},
		{"rejected, had one", true, []step{
			{with, false, true},
			{who: newKeys},
			{without, false, false},
			{without, true, false},
		}},
		{"rejected, might have had one", false, []step{
			{who: otherWithout},
			{who: newKeys},
			{with, false, false},
			{with, true, false},
		}},
	}
	caches := map[string]func(testing.TB) tls.ClientSessionCache{
		"in memory": func(testing.TB) tls.ClientSessionCache { return tls.NewLRUClientSessionCache(0) },
		"as bytes":  func(t testing.TB) tls.ClientSessionCache { return newStore(t) },
	}

	ca := newAuthority(t)
	cert := ca.Issue(t, "client.example")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for cacheName, newCache := range caches {
			for _, script := range scripts {
				t.Run(tls.VersionName(version)+" "+cacheName+" "+script.name, func(t *testing.T) {
					server := ca.Server(t, "a.example")
					server.MaxVersion = version
					seen := ca.asking(server, script.asks)
					addr := listen(t, server)
					cache := newCache(t)

					for i, s := range script.steps {
						cfg := &tls.Config{RootCAs: ca.Pool, ClientSessionCache: cache}
						switch s.who {
						case newKeys:
							var key [32]byte
							_, _ = rand.Read(key[:])
							server.SetSessionTicketKeys([][32]byte{key})
							continue
						case with, otherWith:
							cfg.Certificates = []tls.Certificate{cert}
						}
						if s.who == otherWith || s.who == otherWithout {
							if state := dialPlain(t, cfg, "a.example", addr); state.DidResume != s.resumed {
								t.Fatalf("step %d, %s: DidResume = %t, want %t", i, s.who, state.DidResume, s.resumed)
							}
							<-seen
							continue
						}
						d := dial.New(&http.Transport{TLSClientConfig: cfg}, nil)
						r := mustDial(t, d, target("a.example", addr))
						readGreeting(t, r.Conn)
						if r.TLS.DidResume != s.resumed {
							t.Fatalf("step %d, %s: DidResume = %t, want %t", i, s.who, r.TLS.DidResume, s.resumed)
						}
						if r.ClientCert != s.clientCert {
							t.Errorf("step %d, %s: ClientCert = %t, want %t", i, s.who, r.ClientCert, s.clientCert)
						}
						if <-seen && !r.ClientCert {
							t.Errorf("step %d, %s: the server knows a client that is not reported", i, s.who)
						}
					}
				})
			}
		}
	}
}

// TestC7_CacheThatDropsTheMark: a cache that replaces Extra, against its
// documentation, costs sharing and nothing else.
func TestC7_CacheThatDropsTheMark(t *testing.T) {
	ca := newAuthority(t)
	addr := listen(t, ca.Server(t, "a.example"))
	lru := tls.NewLRUClientSessionCache(0)
	d := dial.New(&http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: ca.Pool,
		ClientSessionCache: cacheFuncs{lru.Get, func(key string, cs *tls.ClientSessionState) {
			if _, state, _ := cs.ResumptionState(); state != nil {
				state.Extra = [][]byte{[]byte(stamp)}
			}
			lru.Put(key, cs)
		}},
	}}, nil)
	for _, resumed := range []bool{false, true, true} {
		r := mustDial(t, d, target("a.example", addr))
		if readGreeting(t, r.Conn); r.TLS.DidResume != resumed || r.ClientCert != resumed {
			t.Errorf("DidResume = %t, ClientCert = %t, want %t", r.TLS.DidResume, r.ClientCert, resumed)
		}
	}
}

func TestC7_JunkFromTheCache(t *testing.T) {
	ca := newAuthority(t)
	addr := listen(t, ca.Server(t, "a.example"))
	cfg := &tls.Config{RootCAs: ca.Pool, ClientSessionCache: tls.NewLRUClientSessionCache(0)}
	dialPlain(t, cfg, "a.example", addr)
	good, _ := cfg.ClientSessionCache.Get("a.example")
	versionless, err := tls.NewResumptionState([]byte("ticket"), new(tls.SessionState))
	if err != nil {
		t.Fatal(err)
	}

	tests := []struct {
		name    string
		cs      *tls.ClientSessionState
		ok      bool
		resumed bool
	}{
		{"nil", nil, true, false},
		{"without a session", new(tls.ClientSessionState), true, false},
		{"session of no version", versionless, true, false},
		{"session, but not found", good, false, false},
		{"session", good, true, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var put []*tls.ClientSessionState
			d := dial.New(&http.Transport{TLSClientConfig: &tls.Config{
				RootCAs: ca.Pool,
				ClientSessionCache: cacheFuncs{
					func(string) (*tls.ClientSessionState, bool) { return test.cs, test.ok },
					func(_ string, cs *tls.ClientSessionState) { put = append(put, cs) },
				},
			}}, nil)
			r := mustDial(t, d, target("a.example", addr))
			if r.TLS.DidResume != test.resumed || r.ClientCert != test.resumed {
				t.Errorf("DidResume = %t, ClientCert = %t, want %t", r.TLS.DidResume, r.ClientCert, test.resumed)
			}
			if readGreeting(t, r.Conn); len(put) != 1 || put[0] == nil {
				t.Errorf("put %v, want the new session", put)
			}
		})
	}
}

// TestC7_EveryTicket: a TLS 1.3 server may send any number of tickets at any
// time. Package tls's sends one, so the others are put here as its client does.
func TestC7_EveryTicket(t *testing.T) {
	ca := newAuthority(t)
	cert := ca.Issue(t, "client.example")
	tests := []struct {
		name string
		asks tls.ClientAuthType
		want bool
	}{
		{"certificate not asked for", tls.NoClientCert, false},
		{"certificate sent", tls.RequestClientCert, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			server := ca.Server(t, "a.example")
			server.ClientAuth = test.asks
			addr := listen(t, server)
			source := &tls.Config{RootCAs: ca.Pool, ClientSessionCache: tls.NewLRUClientSessionCache(0)}
			user := tls.NewLRUClientSessionCache(0)

			cfg := &tls.Config{
				RootCAs:            ca.Pool,
				Certificates:       []tls.Certificate{cert},
				ClientSessionCache: user,
			}
			clientCert := dial.WatchClientCert(cfg)
			if state := dialPlain(t, cfg, "a.example", addr); clientCert(state) != test.want {
				t.Fatalf("ClientCert = %t, want %t", !test.want, test.want)
			}

			var wg sync.WaitGroup
			for _, key := range []string{"1", "2", "3"} {
				dialPlain(t, source, "a.example", addr)
				ticket, _ := source.ClientSessionCache.Get("a.example")
				source.ClientSessionCache.Put("a.example", nil)
				wg.Go(func() { cfg.ClientSessionCache.Put(key, ticket) })
			}
			wg.Wait()
			for _, key := range []string{"1", "2", "3", "a.example"} {
				cs, _ := user.Get(key)
				_, state, _ := cs.ResumptionState()
				if state == nil {
					t.Fatalf("session %q was not put", key)
				}
				if got := len(state.Extra) == 0; got != test.want {
					t.Errorf("session %q: Extra %q, so may have sent a certificate: %t, want %t", key, state.Extra, got, test.want)
				}
			}
		})
	}
}

// TestC7_ExtraIsAppendedTo: entries of other layers stay as they are, also
// behind the end of the slice.
func TestC7_ExtraIsAppendedTo(t *testing.T) {
	ca := newAuthority(t)
	user := tls.NewLRUClientSessionCache(0)
	cfg := &tls.Config{RootCAs: ca.Pool, ClientSessionCache: user}
	dialPlain(t, cfg, "a.example", listen(t, ca.Server(t, "a.example")))
	cs, _ := user.Get("a.example")
	_, state, err := cs.ResumptionState()
	if err != nil {
		t.Fatal(err)
	}
	entries := [][]byte{[]byte("one"), []byte("two"), []byte("another layer's")}
	state.Extra = entries[:2]

	dial.WatchClientCert(cfg)
	cfg.ClientSessionCache.Put("a.example", cs)
	cfg.ClientSessionCache.Put("junk", new(tls.ClientSessionState))
	cfg.ClientSessionCache.Put("deleted", nil)

	cs, _ = user.Get("a.example")
	if _, state, err = cs.ResumptionState(); err != nil {
		t.Fatal(err)
	}
	if len(state.Extra) != 3 || string(state.Extra[0]) != "one" || string(state.Extra[1]) != "two" {
		t.Errorf("Extra = %q, want one, two and the mark", state.Extra)
	}
	if got := string(entries[2]); got != "another layer's" {
		t.Errorf("the entry behind Extra became %q", got)
	}
	if cs, ok := user.Get("junk"); cs == nil || !ok {
		t.Error("what cannot be marked was not put")
	}
}

// TestC7_ConcurrentSessions: tickets come in while other goroutines use their
// connections, and are offered by several connections at once.
func TestC7_ConcurrentSessions(t *testing.T) {
	ca := newAuthority(t)
	cert := ca.Issue(t, "client.example")
	ca.eachVersion(t, func(t *testing.T, server *tls.Config) {
		d := dial.New(&http.Transport{TLSClientConfig: &tls.Config{
			RootCAs:            ca.Pool,
			Certificates:       []tls.Certificate{cert},
			ClientSessionCache: tls.NewLRUClientSessionCache(0),
		}}, nil)
		to := target("a.example", listen(t, server))
		readGreeting(t, mustDial(t, d, to).Conn)

		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 4 {
					r, err := d.Dial(t.Context(), to)
					if err != nil {
						t.Error(err)
						return
					}
					var use sync.WaitGroup
					use.Go(func() { _, _ = r.Conn.Read(make([]byte, 1)) })
					use.Go(func() { _, _ = io.WriteString(r.Conn, "hello") })
					use.Go(func() { _ = r.Conn.(*tls.Conn).ConnectionState() })
					if !r.TLS.DidResume || r.ClientCert {
						t.Errorf("DidResume = %t, ClientCert = %t, want true, false", r.TLS.DidResume, r.ClientCert)
					}
					use.Wait()
					r.Conn.Close()
				}
			})
		}
		wg.Wait()
		d.Wait()
	})
}

// TestC6_VerifyIsNotTheWatcher: the VerifyConnection that sessions are watched
// with is not asked about other hosts, and the user's is asked about every
// connection as ever.
func TestC6_VerifyIsNotTheWatcher(t *testing.T) {
	ca := newAuthority(t)
	addr := listen(t, ca.Server(t, "a.example"))
	var resumed []bool
	tests := map[string]func(tls.ConnectionState) error{
		"none": nil,
		"the user's": func(state tls.ConnectionState) error {
			resumed = append(resumed, state.DidResume)
			return nil
		},
		"refusing": func(tls.ConnectionState) error { return errRefused },
	}
	for name, verify := range tests {
		t.Run(name, func(t *testing.T) {
			d := dial.New(&http.Transport{TLSClientConfig: &tls.Config{
				RootCAs:            ca.Pool,
				ClientSessionCache: tls.NewLRUClientSessionCache(0),
				VerifyConnection:   verify,
			}}, nil)
			for range 2 {
				if name == "refusing" {
					mustRefuse(t, d, target("a.example", addr))
					continue
				}
				r := mustDial(t, d, target("a.example", addr))
				readGreeting(t, r.Conn)
				if (r.Verify == nil) != (verify == nil) {
					t.Errorf("Verify is nil: %t, want %t", r.Verify == nil, verify == nil)
				}
			}
		})
	}
	if !slices.Equal(resumed, []bool{false, true}) {
		t.Errorf("the user's was asked with DidResume %v, want false, true", resumed)
	}
}
