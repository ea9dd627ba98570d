package integration

import (
	"strings"
	"testing"
	"text/template"
)

// HAProxy 2.6.12 answers as its rule says, without a body. If the request's has
// not come to its end it resets the stream with CANCEL, and several times more
// with STREAM_CLOSED.
var haproxyConfig = template.Must(template.New("haproxy.cfg").Parse(`
global
	log stdout format raw daemon
defaults
	mode http
	option dontlognull
	option http-ignore-probes
	timeout connect 10s
	timeout client 30s
	timeout server 30s
frontend hosts
	bind {{.Addr1}}:{{.Port}},{{.Addr2}}:{{.Port}} ssl crt {{.Dir}}/cert.pem alpn h2
	log global
	log-format "request %cp 0 %fi %[ssl_fc_sni] %[var(txn.host)] %HM %ST %HV"
	http-request set-var(txn.sni) ssl_fc_sni
	http-request set-var(txn.host) req.hdr(host),field(1,:)
	http-request return status 421 unless { var(txn.host),strcmp(txn.sni) eq 0 }
	default_backend backend
backend backend
	server backend {{.Backend}}
`))

// startHAProxy starts an HAProxy whose rule is that Host be SNI.
func startHAProxy(t *testing.T) *misdirecting {
	path := tool(t, "haproxy")
	m := newMisdirecting(t)
	m.strict = true
	m.accessLog.read = m.logOutput
	m.issue(t, "cert.pem", "cert.pem.key", full("*")) // where it looks for the key
	m.proxy(t, haproxyConfig, "", path, "-db", "-f", m.configFile())
	return m
}

// logOutput returns what of the program's output are lines of the access log.
func (m *misdirecting) logOutput() (string, error) {
	var text strings.Builder
	for line := range strings.Lines(m.process.output.String()) {
		if fields, ok := strings.CutPrefix(line, "request "); ok {
			text.WriteString(fields)
		}
	}
	return text.String(), nil
}

func TestHAProxy_M1_HostIsNotSNI(t *testing.T) { testMisdirected(t, startHAProxy) }
