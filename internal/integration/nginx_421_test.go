package integration

import "testing"

// Asked for another host than SNI's on a connection, nginx 1.22.1 answers 421
// if the other's server verifies clients, be it that they need no certificate.
// It does so while it reads the header, before it knows the method, and logs
// "client attempted to request the server name different from the one that was
// negotiated". The other way round it serves a on a connection of b.
var nginxVerifyConfig = nginxServers(`
	ssl_client_certificate {{.Dir}}/ca.pem;
	proxy_set_header Host $host;
	{{range .Hosts}}
	server {
		listen {{$.Addr1}}:{{$.Port}} ssl http2;
		listen {{$.Addr2}}:{{$.Port}} ssl http2;
		server_name {{.}}.example.test;
		{{if eq . "b"}}ssl_verify_client {{$.B}};{{end}}
		location / { proxy_pass http://{{$.Backend}}; }
	}
	{{end}}
`)

// startVerifyingNginx starts an nginx that verifies the clients of b.
func startVerifyingNginx(t *testing.T, verify string) *misdirecting {
	path := tool(t, "nginx")
	m := newMisdirecting(t)
	if verify == "on" {
		m.identify(t)
	}
	m.proxy(t, nginxVerifyConfig, verify, path, m.nginxArgs()...)
	return m
}

func TestNginx_M1_ClientIsVerified(t *testing.T) {
	for _, verify := range []string{"optional", "on"} {
		t.Run(verify, func(t *testing.T) {
			testMisdirected(t, func(t *testing.T) *misdirecting { return startVerifyingNginx(t, verify) })
		})
	}
}

// C7: what nginx would permit: a on a connection on which the client has shown
// its certificate.
func TestNginx_C7_IdentifiedConnectionIsNotShared(t *testing.T) {
	for _, share := range []bool{false, true} {
		m := startVerifyingNginx(t, "on")
		m.host(addr1, "a", "b", "c")
		tr := m.transport(t)
		tr.Policy.ShareClientCert = share
		for _, name := range []string{"b", "a", "c", "b"} {
			m.get(t, tr, name, 200)
		}
		if share {
			tally{"b b 200": 2, "a b 200": 1, "c b 200": 1}.expect(t, m, tr, 1)
		} else {
			tally{"b b 200": 2, "a a 200": 1, "c a 200": 1}.expect(t, m, tr, 2)
		}
	}
}
