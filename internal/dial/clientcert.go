package dial

import (
	"crypto/tls"
	"sync/atomic"
)

// watchClientCert arranges for cfg to notice whether a client certificate is
// sent, or was in a session that is resumed, and returns the function that tells
// so after the handshake. That the server asked, or that a certificate is
// configured, is not enough: many configurations hold a certificate that one
// host wants and no other does. Nor is it necessary: the session may be of
// another configuration that has one, see [sessions].
func watchClientCert(cfg *tls.Config) func(tls.ConnectionState) bool {
	var identified atomic.Bool // the server may ask again after the handshake, from a Read
	watchSessions(cfg, &identified)

	choose := cfg.GetClientCertificate
	if choose == nil {
		if len(cfg.Certificates) == 0 {
			return func(tls.ConnectionState) bool { return identified.Load() }
		}
		choose = firstSupported(cfg.Certificates)
	}
	cfg.GetClientCertificate = func(req *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		cert, err := choose(req)
		if err == nil && cert != nil && len(cert.Certificate) > 0 {
			identified.Store(true)
		}
		return cert, err
	}
	renegotiates := cfg.Renegotiation != tls.RenegotiateNever
	return func(state tls.ConnectionState) bool {
		switch {
		case identified.Load():
			return true
		case renegotiates && state.Version <= tls.VersionTLS12:
			// The certificate may be asked for later, when the connection
			// already carries several hosts' requests. HTTP/2 forbids it
			// (RFC 9113 §9.2.1), crypto/tls would do it.
			return true
		}
		return false
	}
}

// firstSupported chooses among certs as crypto/tls does when there is no
// GetClientCertificate.
func firstSupported(certs []tls.Certificate) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return func(req *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		for i := range certs {
			if req.SupportsCertificate(&certs[i]) == nil {
				return &certs[i], nil
			}
		}
		return new(tls.Certificate), nil
	}
}
