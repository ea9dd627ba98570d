package dial_test

import (
	"crypto/tls"
	"net/http"
	"testing"

	"github.com/h2coalesce/h2coalesce/internal/dial"
)

func TestC7_ClientCertificate(t *testing.T) {
	ca, other := newAuthority(t), newNamedAuthority(t, "another authority")
	cert := ca.Issue(t, "client.example")
	stranger := other.Issue(t, "client.example") // not of an authority that the server names
	get := func(c *tls.Certificate) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c, nil }
	}

	tests := []struct {
		name   string
		client *tls.Config
		asks   bool
		want   bool // sent, as the server sees it
	}{
		{"sent", &tls.Config{Certificates: []tls.Certificate{cert}}, true, true},
		{"not asked for", &tls.Config{Certificates: []tls.Certificate{cert}}, false, false},
		{"none to send", &tls.Config{}, true, false},
		{"none that is acceptable", &tls.Config{Certificates: []tls.Certificate{stranger}}, true, false},
		{"the second is acceptable", &tls.Config{Certificates: []tls.Certificate{stranger, cert}}, true, true},
		{"function sends", &tls.Config{GetClientCertificate: get(&cert)}, true, true},
		{"function declines", &tls.Config{GetClientCertificate: get(new(tls.Certificate))}, true, false},
		{"function not asked", &tls.Config{GetClientCertificate: get(&cert)}, false, false},
		{"function goes before the list", &tls.Config{
			GetClientCertificate: get(new(tls.Certificate)),
			Certificates:         []tls.Certificate{cert},
		}, true, false},
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, test := range tests {
			t.Run(tls.VersionName(version)+" "+test.name, func(t *testing.T) {
				server := ca.Server(t, "a.example")
				server.MaxVersion = version
				seen := ca.asking(server, test.asks)
				client := test.client.Clone()
				client.RootCAs = ca.Pool
				d := dial.New(&http.Transport{TLSClientConfig: client}, nil)
				r := mustDial(t, d, target("a.example", listen(t, server)))
				if r.ClientCert != test.want {
					t.Errorf("ClientCert = %t, want %t", r.ClientCert, test.want)
				}
				// A TLS 1.3 client is done before the server has judged it.
				readGreeting(t, r.Conn)
				if got := <-seen; got != test.want {
					t.Errorf("the server saw a certificate: %t, want %t", got, test.want)
				}
			})
		}
	}
}

func TestC7_RenegotiationMayAskLater(t *testing.T) {
	ca := newAuthority(t)
	cert := ca.Issue(t, "client.example")
	tests := []struct {
		name    string
		version uint16
		allowed tls.RenegotiationSupport
		certs   []tls.Certificate
		want    bool
	}{
		{"allowed", tls.VersionTLS12, tls.RenegotiateOnceAsClient, []tls.Certificate{cert}, true},
		{"not allowed", tls.VersionTLS12, tls.RenegotiateNever, []tls.Certificate{cert}, false},
		{"nothing to send", tls.VersionTLS12, tls.RenegotiateFreelyAsClient, nil, false},
		{"TLS 1.3 has none", tls.VersionTLS13, tls.RenegotiateFreelyAsClient, []tls.Certificate{cert}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			server := ca.Server(t, "a.example")
			server.MaxVersion = test.version
			addr := listen(t, server)
			d := dial.New(&http.Transport{TLSClientConfig: &tls.Config{
				RootCAs:            ca.Pool,
				Certificates:       test.certs,
				Renegotiation:      test.allowed,
				ClientSessionCache: tls.NewLRUClientSessionCache(1),
			}}, nil)
			for _, resumed := range []bool{false, true} {
				r := mustDial(t, d, target("a.example", addr))
				if readGreeting(t, r.Conn); r.TLS.DidResume != resumed {
					t.Fatalf("DidResume = %t, want %t", r.TLS.DidResume, resumed)
				}
				if r.ClientCert != test.want {
					t.Errorf("resumed = %t: ClientCert = %t, want %t", resumed, r.ClientCert, test.want)
				}
			}
		})
	}
}
