package integration

import (
	"encoding/json"
	"testing"
	"text/template"
)

// With strict_sni_host, Caddy 2.6.2 answers 421 to every host but SNI's, logs it
// as an error, and resets the stream with NO_ERROR if there is a body, of which
// it has read nothing.
var caddyConfig = template.Must(template.New("Caddyfile").Parse(`{
	admin off
	auto_https off
	servers {
		strict_sni_host on
		protocols h1 h2
	}
	log {
		output file {{.Dir}}/error.log
	}
}
https://*.example.test:{{.Port}} {
	bind {{.Addr1}} {{.Addr2}}
	tls {{.Dir}}/cert.pem {{.Dir}}/key.pem
	log {
		output file {{.Dir}}/access.log
		format json
	}
	reverse_proxy {{.Backend}}
}
`))

// startCaddy starts a Caddy.
func startCaddy(t *testing.T) *misdirecting {
	path := tool(t, "caddy")
	m := newMisdirecting(t)
	m.strict = true
	m.accessLog.parse = parseCaddy
	t.Setenv("XDG_DATA_HOME", m.dir) // it saves certificates and the configuration
	t.Setenv("XDG_CONFIG_HOME", m.dir)
	m.proxy(t, caddyConfig, "", path, "run", "--adapter", "caddyfile", "--config", m.configFile())
	return m
}

// parseCaddy parses a line of Caddy's access log, which is JSON.
func parseCaddy(line string) (logged, error) {
	var entry struct {
		Status  int
		Request struct {
			RemotePort int `json:"remote_port,string"`
			Proto      string
			Method     string
			Host       string
			TLS        struct {
				ServerName string `json:"server_name"`
			}
		}
	}
	if err := json.Unmarshal([]byte(line), &entry); err != nil {
		return logged{}, err
	}
	r := entry.Request
	return logged{
		conn:   r.RemotePort,
		sni:    short(r.TLS.ServerName),
		host:   short(withoutPort(r.Host)),
		method: r.Method,
		status: entry.Status,
	}, expectHTTP2(r.Proto)
}

func TestCaddy_M1_StrictSNIHost(t *testing.T) { testMisdirected(t, startCaddy) }
