package transport_test

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"

	"github.com/h2coalesce/h2coalesce/internal/lab"
	"github.com/h2coalesce/h2coalesce/transport"
)

// resumed returns for each connection, oldest first, whether it resumed a TLS
// session.
func (r *rig) resumed() (is []bool) {
	for _, c := range r.Record().Conns() {
		is = append(is, c.Resumed)
	}
	return is
}

// C7: a resumed session is shared if it is known that no client certificate was
// sent when it was begun, and only then.
func TestC7_AResumedSession(t *testing.T) {
	for _, test := range []struct {
		name                 string
		asks, has, elsewhere bool
		wantShared           bool
	}{
		{name: "no certificate", wantShared: true},
		{name: "one that nobody asked for", has: true, wantShared: true},
		{name: "asked for, none to send", asks: true, wantShared: true},
		{name: "sent", asks: true, has: true},
		{name: "sent by other code with the same cache", asks: true, elsewhere: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			servers := plain()
			s := servers["127.0.0.1"]
			if test.asks {
				s.ClientAuth = tls.RequestClientCert
			}
			servers["127.0.0.1"] = s
			r := newRig(t, servers)
			cert, err := r.CA().Issue([]string{"client"}, lab.ClientAuth())
			if err != nil {
				t.Fatal(err)
			}
			r.tr.Base.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(8)
			first := r.tr
			if test.elsewhere {
				other := r.tr.Base.TLSClientConfig.Clone()
				other.Certificates = []tls.Certificate{cert}
				first = &transport.Transport{Base: &http.Transport{TLSClientConfig: other}, Resolver: r.Resolver()}
				defer first.Close()
			}
			if test.has {
				r.tr.Base.TLSClientConfig.Certificates = []tls.Certificate{cert}
			}
			mine := r.tr
			r.tr = first
			r.ok("a.example.com")
			r.tr.CloseIdleConnections()
			r.tr = mine
			a, b := r.ok("a.example.com"), r.ok("b.example.com")
			if got := r.resumed(); len(got) < 2 || !got[1] {
				t.Fatalf("resumed: %v; the case is void", got)
			}
			if (a == b) != test.wantShared {
				t.Errorf("shared: %v, want %v", a == b, test.wantShared)
			}
		})
	}
}

// C3: a configuration that verifies nothing gets verified chains out of a session
// that another one has begun.
func TestC3_AResumedSessionVerifiesNothing(t *testing.T) {
	r := newRig(t, plain())
	r.tr.Base.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	careless := r.tr.Base.TLSClientConfig.Clone()
	careless.InsecureSkipVerify = true
	r.ok("a.example.com")
	r.tr = &transport.Transport{Base: &http.Transport{TLSClientConfig: careless}, Resolver: r.Resolver()}
	defer r.tr.Close()
	res, err := r.tr.RoundTrip(r.request(t.Context(), http.MethodGet, "a.example.com", nil))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if !res.TLS.DidResume || len(res.TLS.VerifiedChains) == 0 {
		t.Fatalf("resumed %v, %d chains; the case is void", res.TLS.DidResume, len(res.TLS.VerifiedChains))
	}
	if a, b := r.ok("a.example.com"), r.ok("b.example.com"); a == b {
		t.Error("shared on chains that this configuration has not verified")
	}
}

// C1: a partition does not resume another's TLS session, by which the server
// could tell that both are one client's: on HTTP/2, on HTTP/1.1 and behind a
// proxy.
func TestC1_PartitionsResumeNoSessionsOfOthers(t *testing.T) {
	for name, set := range map[string]func(r *rig){
		"HTTP/2":   func(*rig) {},
		"HTTP/1.1": func(r *rig) { r.tr.Base.Protocols = new(http.Protocols); r.tr.Base.Protocols.SetHTTP1(true) },
		"proxy": func(r *rig) {
			proxy := httptest.NewServer(tunnel(r.t, r, new(atomic.Int32)))
			r.t.Cleanup(proxy.Close)
			u, err := url.Parse(proxy.URL)
			if err != nil {
				r.t.Fatal(err)
			}
			r.tr.Base.Proxy = http.ProxyURL(u)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, plain())
			r.tr.Base.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(8)
			set(r)
			for _, partition := range []string{"p", "q", "", "p", "q", ""} {
				r.okContext(transport.WithPartition(t.Context(), partition), "a.example.com")
				r.tr.CloseIdleConnections()
			}
			for i, got := range r.resumed() {
				if want := i >= 3; got != want {
					t.Errorf("connection %d resumed a session: %v, want %v", i+1, got, want)
				}
			}
			r.wantHandshakes(6)
			r.tr.Close()
		})
	}
}
