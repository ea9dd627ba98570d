package lab_test

import (
	"crypto/tls"
	"crypto/x509"
	"path/filepath"
	"testing"
	"time"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

func TestIssue(t *testing.T) {
	ca, err := lab.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	end := time.Date(2039, 1, 2, 3, 4, 5, 0, time.UTC)
	cert, err := ca.Issue([]string{"a.test", "*.b.test", "192.0.2.1", "2001:db8::1"}, lab.NotAfter(end), lab.CommonName("cn.test"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a.test", "x.b.test", "192.0.2.1", "2001:db8::1"} {
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: ca.Pool()}); err != nil {
			t.Error(err)
		}
	}
	if cert.Leaf.VerifyHostname("cn.test") == nil || cert.Leaf.Subject.CommonName != "cn.test" || !cert.Leaf.NotAfter.Equal(end) {
		t.Errorf("subject %v until %v", cert.Leaf.Subject, cert.Leaf.NotAfter)
	}
	// Inside a bubble it is the year 2000.
	if _, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: ca.Pool(), CurrentTime: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)}); err != nil {
		t.Error(err)
	}
	client, err := ca.Issue(nil, lab.ClientAuth())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Leaf.Verify(x509.VerifyOptions{Roots: ca.Pool()}); err == nil {
		t.Error("a client's certificate is good for a server")
	}

	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if err := lab.WritePEM(cert, certFile, keyFile); err != nil {
		t.Fatal(err)
	}
	if read, err := tls.LoadX509KeyPair(certFile, keyFile); err != nil || !read.Leaf.Equal(cert.Leaf) {
		t.Error("another certificate was read", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(ca.PEM()) {
		t.Error("the authority's PEM is unreadable")
	}
}
