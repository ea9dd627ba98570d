package integration

import (
	"testing"
	"text/template"
)

// Apache 2.4.71 answers 421 if the virtual hosts of SNI and of Host differ in
// protocols, cipher suites or how clients are verified, whichever is which, and
// logs "AH02032: Hostname a.example.test provided via SNI and hostname
// b.example.test provided via HTTP have no compatible SSL setup for policy
// 'secure'". Some lines of the access log it writes only when the client sends
// more or the connection ends.
var apacheConfig = template.Must(template.New("apache.conf").Parse(`
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule http2_module /usr/lib/apache2/modules/mod_http2.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so
{{if .Root}}User www-data
Group www-data{{end}}
ServerRoot {{.Dir}}
DefaultRuntimeDir {{.Dir}}
PidFile {{.Dir}}/pid
ServerName apache.example.test
ErrorLog {{.Dir}}/error.log
LogLevel warn
LogFormat "%{remote}p 0 %A %{SSL_TLS_SNI}x %{Host}i %m %>s %H" fields
StartServers 1
MinSpareThreads 1
Listen {{.Addr1}}:{{.Port}}
Listen {{.Addr2}}:{{.Port}}
Protocols h2
KeepAliveTimeout 60
SSLSessionCache none
SSLCertificateFile {{.Dir}}/cert.pem
SSLCertificateKeyFile {{.Dir}}/key.pem
SSLCACertificateFile {{.Dir}}/ca.pem
ProxyPreserveHost On
{{range .Hosts}}
<VirtualHost *:{{$.Port}}>
	ServerName {{.}}.example.test
	SSLEngine on
	CustomLog {{$.Dir}}/access.log fields
	ProxyPass / http://{{$.Backend}}/
	{{if eq . "b"}}{{$.B}}{{end}}
</VirtualHost>
{{end}}
`))

// startApache starts an Apache with a directive for b alone.
func startApache(t *testing.T, directive string) *misdirecting {
	path := tool(t, "apache2")
	m := newMisdirecting(t)
	m.identify(t) // if asked
	m.proxy(t, apacheConfig, directive, path, "-D", "FOREGROUND", "-f", m.configFile())
	return m
}

func TestApache_M1_TLSSettingsDiffer(t *testing.T) {
	for _, tt := range []struct{ name, directive string }{
		{"cipher suites", "SSLCipherSuite ECDHE-ECDSA-AES128-GCM-SHA256"},
		{"protocols", "SSLProtocol TLSv1.3"},
		{"client certificate", "SSLVerifyClient require"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			testMisdirected(t, func(t *testing.T) *misdirecting { return startApache(t, tt.directive) })
		})
	}
}
