package coalesce_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

// server is a TLS server's certificate and what trusts it.
type server struct {
	config *tls.Config
	roots  *x509.CertPool
}

func newServer(t *testing.T) *server {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		DNSNames:    []string{"a.example.com", "b.example.com"},
		IPAddresses: []net.IP{net.ParseIP("192.0.2.9"), net.ParseIP("2001:db8::9"), net.ParseIP("fe80::9")},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &server{
		config: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"h2"}},
		roots:  roots,
	}
}

// dial returns the client's state after a handshake, and after one byte was
// read, with which a TLS 1.3 session ticket comes.
func (s *server) dial(t *testing.T, config *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	// Not net.Pipe: an alert that the client writes while the server still
	// writes its flight would block both.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	clientEnd, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	serverEnd, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { // ends when the client's end is closed
		defer close(served)
		defer serverEnd.Close()
		c := tls.Server(serverEnd, s.config)
		if c.Handshake() == nil {
			c.Write([]byte{0})
		}
	}()
	defer func() { clientEnd.Close(); <-served }()
	config.RootCAs = s.roots
	config.NextProtos = []string{"h2"}
	c := tls.Client(clientEnd, config)
	if err := c.Handshake(); err != nil {
		return tls.ConnectionState{}, err
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return c.ConnectionState(), nil
}

// That a verified chain speaks for names other than the one it was verified for
// (C3, C5) rests on how crypto/x509 applies name constraints: to all names of the
// leaf. A CA that may not issue for a name does not get it shared either.
func TestC3_NameConstraintsConcernAllNames(t *testing.T) {
	issue := func(template, parent *x509.Certificate, public, signer any) *x509.Certificate {
		der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		names []string
		want  bool
	}{
		{[]string{"a.example.com", "b.example.com"}, true},
		{[]string{"a.example.com", "b.example.org"}, false},
	} {
		valid := x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
		ca := valid
		ca.IsCA, ca.BasicConstraintsValid = true, true
		ca.PermittedDNSDomainsCritical, ca.PermittedDNSDomains = true, []string{"example.com"}
		root := issue(&ca, &ca, key.Public(), key)
		leaf := valid
		leaf.DNSNames = tt.names
		roots := x509.NewCertPool()
		roots.AddCert(root)
		chains, err := issue(&leaf, root, key.Public(), key).Verify(x509.VerifyOptions{DNSName: "a.example.com", Roots: roots})
		if got := err == nil && len(chains) > 0; got != tt.want {
			t.Errorf("names %q, verified for the first: %v, %v; want %v", tt.names, got, err, tt.want)
		}
	}
}

// What C3 concludes from ServerName rests on what crypto/tls puts there.
func TestC3_ServerNameOfRealHandshakes(t *testing.T) {
	s := newServer(t)
	for _, tt := range []struct {
		name       string
		host       string // that the connection is said to be dialed for
		configName string // tls.Config.ServerName; the host where empty
		insecure   bool
		wantName   string
		want       coalesce.Reason
		wantErr    bool
	}{
		{name: "name", host: "a.example.com", wantName: "a.example.com", want: coalesce.ReasonShared},
		{name: "upper case", host: "a.example.com", configName: "A.Example.com", wantName: "A.Example.com", want: coalesce.ReasonShared},
		{name: "final dot", host: "a.example.com", configName: "a.example.com.", wantName: "a.example.com", want: coalesce.ReasonShared},
		{name: "IPv4", host: "192.0.2.9", want: coalesce.ReasonShared},
		{name: "IPv6", host: "2001:db8::9", want: coalesce.ReasonShared},
		{name: "IPv6 in brackets", host: "2001:db8::9", configName: "[2001:db8::9]", want: coalesce.ReasonShared},
		{name: "IPv6 with a zone", host: "fe80::9%eth0", wantErr: true},
		{name: "name not in the certificate", host: "c.example.com", wantErr: true},
		{name: "fixed name", host: "a.example.com", configName: "b.example.com", wantName: "b.example.com", want: coalesce.ReasonUnverified},
		{name: "fixed name, dialed by address", host: "192.0.2.9", configName: "b.example.com", wantName: "b.example.com", want: coalesce.ReasonUnverified},
		{name: "fixed address, dialed by name", host: "a.example.com", configName: "192.0.2.9", want: coalesce.ReasonUnverified},
		{name: "fixed address, dialed by an address not named", host: "192.0.2.10", configName: "192.0.2.9", want: coalesce.ReasonUnverified},
		{name: "not verified", host: "a.example.com", insecure: true, wantName: "a.example.com", want: coalesce.ReasonUnverified},
		{name: "address not verified", host: "192.0.2.9", insecure: true, want: coalesce.ReasonUnverified},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(tt.name+"/"+tls.VersionName(version), func(t *testing.T) {
				config := &tls.Config{
					ServerName: tt.configName, InsecureSkipVerify: tt.insecure, MinVersion: version, MaxVersion: version,
					ClientSessionCache: tls.NewLRUClientSessionCache(1),
				}
				if config.ServerName == "" {
					config.ServerName = tt.host
				}
				for _, resumed := range []bool{false, true} {
					state, err := s.dial(t, config)
					if tt.wantErr {
						if err == nil {
							t.Fatal("the handshake succeeds")
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					if state.DidResume != resumed {
						t.Errorf("DidResume = %v; want %v", state.DidResume, resumed)
					}
					if state.ServerName != tt.wantName {
						t.Errorf("ServerName = %q; want %q", state.ServerName, tt.wantName)
					}
					conn := &coalesce.Conn{
						Host: tt.host, Port: 443, RemoteAddr: remote, TLS: &state, Coverage: coalesce.NewCoverage(state.PeerCertificates[0]),
					}
					request := &coalesce.Request{Host: "b.example.com", Port: 443, Addrs: []netip.Addr{remote.Addr()}}
					if got := new(coalesce.Policy).Judge(conn, request, time.Now()); got != tt.want {
						t.Errorf("resumed %v: Judge = %q; want %q", resumed, got, tt.want)
					}
				}
			})
		}
	}
}
