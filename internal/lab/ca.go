package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"time"
)

// CA is a throw-away certificate authority with an ECDSA P-256 key that exists
// only in memory. It is safe for concurrent use.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// notBefore is the start of every certificate's validity. It lies before
// 2000-01-01, where a synctest bubble's clock starts, so that a certificate
// issued outside a bubble is valid inside it.
func notBefore() time.Time { return time.Date(1999, time.January, 1, 0, 0, 0, 0, time.UTC) }

const validity = 10 * 365 * 24 * time.Hour

// NewCA makes an authority.
func NewCA() (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "h2coalesce lab CA"},
		NotBefore:             notBefore(),
		NotAfter:              time.Now().Add(validity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &CA{cert: cert, key: key}, nil
}

// Pool returns a new pool that holds the authority's certificate.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

// PEM returns the authority's certificate, for programs that take a CA file.
func (ca *CA) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
}

// CertOption changes a certificate before it is signed.
type CertOption func(template *x509.Certificate)

// NotAfter sets the end of the certificate's validity. The default is ten years
// from now.
func NotAfter(t time.Time) CertOption {
	return func(template *x509.Certificate) { template.NotAfter = t }
}

// CommonName sets the subject's common name. The default is none.
func CommonName(name string) CertOption {
	return func(template *x509.Certificate) { template.Subject.CommonName = name }
}

// ClientAuth makes a certificate for a client instead of one for a server.
func ClientAuth() CertOption {
	return func(template *x509.Certificate) {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
}

// Issue signs a certificate with a key of its own. Names are DNS names, such as
// "example.com" or "*.example.com", and IP literals, which become iPAddress
// entries. Names are not checked, and there may be none. The returned
// certificate's Leaf is set.
func (ca *CA) Issue(names []string, opts ...CertOption) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		NotBefore:   notBefore(),
		NotAfter:    time.Now().Add(validity),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if addr, err := netip.ParseAddr(name); err == nil {
			template.IPAddresses = append(template.IPAddresses, addr.AsSlice())
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	for _, opt := range opts {
		opt(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// WritePEM writes the certificate and its key to two files, for servers that
// are not part of the lab. Only the owner may read the key file.
func WritePEM(cert tls.Certificate, certFile, keyFile string) error {
	var chain []byte
	for _, der := range cert.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return fmt.Errorf("lab: encoding the key: %w", err)
	}
	if err := os.WriteFile(certFile, chain, 0o644); err != nil {
		return err
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return os.WriteFile(keyFile, key, 0o600)
}
