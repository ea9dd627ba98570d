package transport_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/h2coalesce/h2coalesce/coalesce"
	"github.com/h2coalesce/h2coalesce/internal/lab"
	"github.com/h2coalesce/h2coalesce/transport"
)

// reasonFor fetches from a and then asks why b would, or would not, go on a's
// connection.
func (r *rig) reasonFor(host string) coalesce.Reason {
	r.t.Helper()
	r.ok("a.example.com")
	d, err := r.tr.Explain(r.t.Context(), r.URL(host, "/"))
	if err != nil || len(d.Considered) != 1 {
		r.t.Fatalf("Explain: %+v, %v", d, err)
	}
	return d.Considered[0].Reason
}

// TestRulesThroughRealHandshakes checks that what the rules need to know
// reaches them. The rules themselves have their tests in package coalesce.
func TestRulesThroughRealHandshakes(t *testing.T) {
	for _, test := range []struct {
		name  string
		setup func(*rig)
		want  coalesce.Reason
	}{
		{"nothing special", func(*rig) {}, coalesce.ReasonShared},
		{"C3 InsecureSkipVerify", func(r *rig) {
			r.tr.Base.TLSClientConfig.InsecureSkipVerify = true
		}, coalesce.ReasonUnverified},
		{"C3 ServerName fixed", func(r *rig) {
			r.tr.Base.TLSClientConfig.ServerName = "c.example.com"
		}, coalesce.ReasonUnverified},
		{"C3 ServerName fixed, by chance to the host dialed", func(r *rig) {
			r.tr.Base.TLSClientConfig.ServerName = "a.example.com"
		}, coalesce.ReasonUnverified},
		{"C6 VerifyConnection pins b to another key", func(r *rig) {
			r.tr.Base.TLSClientConfig.VerifyConnection = func(s tls.ConnectionState) error {
				if s.ServerName == "b.example.com" {
					return errors.New("not b's key")
				}
				return nil
			}
		}, coalesce.ReasonUnverified},
		{"C6 VerifyConnection agrees", func(r *rig) {
			r.tr.Base.TLSClientConfig.VerifyConnection = func(tls.ConnectionState) error { return nil }
		}, coalesce.ReasonShared},
		{"C6 VerifyPeerCertificate has no host to be asked about", func(r *rig) {
			r.tr.Base.TLSClientConfig.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error { return nil }
		}, coalesce.ReasonShared},
		{"C9 MatchNever", func(r *rig) { r.tr.Policy.Match = coalesce.MatchNever }, coalesce.ReasonDisabled},
		{"C11 Allow vetoes", func(r *rig) {
			r.tr.Policy.Allow = func(c coalesce.Candidate) bool {
				return c.Host != "b.example.com" || c.ConnHost != "a.example.com" || c.TLS == nil
			}
		}, coalesce.ReasonVetoed},
		{"MaxHostsPerConn", func(r *rig) { r.tr.Limits.MaxHostsPerConn = 1 }, coalesce.ReasonFull},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, plain(), func(r *rig) {
				test.setup(r)
				if got := r.reasonFor("b.example.com"); got != test.want {
					t.Errorf("reason %q, want %q", got, test.want)
				}
				// And so it is done.
				shared := r.get("b.example.com").conn == "1"
				if shared != (test.want == coalesce.ReasonShared) {
					t.Errorf("shared: %v", shared)
				}
			})
		})
	}
}

func TestC7_AClientCertificate(t *testing.T) {
	for _, test := range []struct {
		name       string
		asks, has  bool
		permit     bool
		wantShared bool
	}{
		{"not asked for", false, true, false, true},
		{"asked for, none to send", true, false, false, true},
		{"sent", true, true, false, false},
		{"sent, and sharing permitted", true, true, true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			servers := plain()
			s := servers["127.0.0.1"]
			if test.asks {
				s.ClientAuth = tls.RequestClientCert
			}
			servers["127.0.0.1"] = s
			bubble(t, servers, func(r *rig) {
				if test.has {
					cert, err := r.CA().Issue([]string{"client"}, lab.ClientAuth())
					if err != nil {
						t.Fatal(err)
					}
					r.tr.Base.TLSClientConfig.Certificates = []tls.Certificate{cert}
				}
				r.tr.Policy.ShareClientCert = test.permit
				a, b := r.ok("a.example.com"), r.ok("b.example.com")
				if (a == b) != test.wantShared {
					t.Errorf("shared: %v", a == b)
				}
			})
		})
	}
}

func TestC12_DomainFronting(t *testing.T) {
	bubble(t, plain(), func(r *rig) {
		a := r.ok("a.example.com")
		req := r.request(r.t.Context(), http.MethodGet, "b.example.com", nil)
		req.Host = "hidden.example.com"
		b := r.do(req)
		if b.status != 200 || b.conn == a {
			t.Errorf("got %+v, want 200 on a connection other than a's, %s", b, a)
		}
		// The same host, spelled differently, is no front.
		for _, host := range []string{"c.example.com", "C.Example.COM", "c.example.com:443", "c.example.com."} {
			req := r.request(r.t.Context(), http.MethodGet, "c.example.com", nil)
			req.Host = host
			if c := r.do(req); c.conn != a {
				t.Errorf("Host %s: connection %s, want a's, %s", host, c.conn, a)
			}
		}
	})
}

func TestC1_AnotherPortIsAnotherOrigin(t *testing.T) {
	r := newRig(t, plain())
	other := newRig(t, plain())
	r.tr.Base.TLSClientConfig.RootCAs.AddCert(root(t, other))
	r.ok("a.example.com")
	d, err := r.tr.Explain(t.Context(), other.URL("b.example.com", "/"))
	if err != nil || d.Considered[0].Reason != coalesce.ReasonPort {
		t.Errorf("%+v, %v", d, err)
	}
	if res, err := r.tr.RoundTrip(other.request(t.Context(), http.MethodGet, "b.example.com", nil)); err != nil {
		t.Error(err)
	} else {
		res.Body.Close()
	}
	other.wantHandshakes(1)
}

func root(t *testing.T, r *rig) *x509.Certificate {
	t.Helper()
	leaf, err := r.CA().Issue([]string{"x"})
	if err != nil {
		t.Fatal(err)
	}
	chains, err := leaf.Leaf.Verify(x509.VerifyOptions{Roots: r.CA().Pool()})
	if err != nil {
		t.Fatal(err)
	}
	return chains[0][len(chains[0])-1]
}

func TestP1_AHostAtMoreAddressesFindsAnyConnection(t *testing.T) {
	r := newRig(t, map[string]lab.Server{
		"127.0.0.1": {Names: []string{"*.example.com"}},
		"127.0.0.2": {Names: []string{"*.example.com"}},
	})
	r.Host("a.example.com", "127.0.0.2")
	r.Host("b.example.com", "127.0.0.1", "127.0.0.2")
	if a, b := r.ok("a.example.com"), r.ok("b.example.com"); a != b {
		t.Errorf("b went on connection %s, though one of its addresses is that of %s", b, a)
	}
	r.wantHandshakes(1)
}

func TestP8_OneLookUpAHost(t *testing.T) {
	r := newRig(t, shy(nil))
	for range 3 {
		for _, h := range []string{"a", "b", "c"} {
			r.ok(h + ".example.com")
		}
	}
	for _, h := range []string{"a.example.com", "b.example.com", "c.example.com"} {
		if n := r.Resolver().LookupsOf(h); n != 1 {
			t.Errorf("%s was looked up %d times", h, n)
		}
	}
}

func TestP8_NothingIsLookedUpBesideACustomDialer(t *testing.T) {
	for _, match := range []coalesce.Match{coalesce.MatchAddress, coalesce.MatchCertificate} {
		t.Run(match.String(), func(t *testing.T) {
			r := newRig(t, plain())
			tr := &transport.Transport{
				Base:   &http.Transport{TLSClientConfig: r.TLSConfig(), DialContext: r.DialContext},
				Policy: coalesce.Policy{Match: match},
			}
			defer tr.Close()
			r.tr = tr
			a, b := r.ok("a.example.com"), r.ok("b.example.com")
			if shared := a == b; shared != (match == coalesce.MatchCertificate) {
				t.Errorf("shared: %v", shared)
			}
			if n, dials := r.Resolver().Lookups(), r.Record().Handshakes(); n != dials {
				t.Errorf("%d look-ups for the dialer's %d dials", n, dials)
			}
		})
	}
}

func TestWithTraceTellsWhatElseWasConsidered(t *testing.T) {
	r := newRig(t, map[string]lab.Server{
		"127.0.0.1": {Names: []string{"*.example.com"}, Misdirected: misdirectsB},
		"127.0.0.2": {Names: []string{"*.example.com"}},
		"127.0.0.3": {Names: []string{"*.example.org"}},
	})
	r.Host("far.example.com", "127.0.0.2")
	r.Host("other.example.org", "127.0.0.3")
	var told []string
	ctx := transport.WithTrace(t.Context(), &transport.Trace{Decided: func(d coalesce.Decision) {
		line := fmt.Sprintf("%.5s %d %s:", d.Host, d.Conn, d.Reason)
		for _, v := range d.Considered {
			line += fmt.Sprintf(" %d=%s", v.Conn, v.Reason)
		}
		told = append(told, line)
	}})
	for _, h := range []string{"a.example.com", "far.example.com", "other.example.org", "b.example.com", "c.example.com", "b.example.com"} {
		r.okContext(ctx, h)
	}
	want := []string{
		"a.exa 1 dialed:",
		"far.e 2 dialed: 1=address-mismatch",
		"other 3 dialed: 1=not-covered 2=not-covered",
		"b.exa 1 shared: 1=shared 2=address-mismatch 3=not-covered",
		"b.exa 4 dialed: 1=misdirected 2=address-mismatch 3=not-covered",
		"c.exa 1 shared: 1=shared 2=address-mismatch 3=not-covered 4=shared",
		"b.exa 4 own: 1=misdirected 2=address-mismatch 3=not-covered 4=own",
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}
