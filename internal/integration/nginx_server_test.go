package integration

import (
	"testing"
	"text/template"
)

// nginxBase is the configuration of every nginx, but for its servers. If it is
// run by root, so are its workers, as other users cannot enter the directory.
var nginxBase = template.Must(template.New("nginx.conf").Parse(`
{{if .Root}}user root;{{end}}
daemon off;
worker_processes 1;
pid {{.Dir}}/pid;
error_log {{.Dir}}/error.log info;
events { worker_connections 256; }
http {
	log_format fields "$connection $connection_requests $server_addr $ssl_server_name $http_host $request_method $status $server_protocol";
	access_log {{.Dir}}/access.log fields;
	client_body_temp_path {{.Dir}}/body;
	proxy_temp_path {{.Dir}}/proxy;
	fastcgi_temp_path {{.Dir}}/fastcgi;
	uwsgi_temp_path {{.Dir}}/uwsgi;
	scgi_temp_path {{.Dir}}/scgi;
	default_type text/plain;
	ssl_certificate {{.Dir}}/cert.pem;
	ssl_certificate_key {{.Dir}}/key.pem;
	{{template "servers" .}}
}
`))

// nginxServers returns a configuration with these servers in it.
func nginxServers(servers string) *template.Template {
	return template.Must(template.Must(nginxBase.Clone()).New("servers").Parse(servers)).Lookup(nginxBase.Name())
}

// nginxConfig is the configuration of most tests. One wildcard certificate
// covers all hosts:
//
//   - b answers 421 unless the connection was opened for it;
//   - nobody answers 421 always;
//   - any other name is served.
var nginxConfig = nginxServers(`
	{{.Extra}}
	server {
		listen {{.Addr1}}:{{.Port}} ssl http2 default_server;
		listen {{.Addr2}}:{{.Port}} ssl http2 default_server;
		server_name a.example.test c.example.test;
		return 200 "host=$host sni=$ssl_server_name\n";
	}
	server {
		listen {{.Addr1}}:{{.Port}} ssl http2;
		listen {{.Addr2}}:{{.Port}} ssl http2;
		server_name b.example.test;
		if ($ssl_server_name != "b.example.test") {
			return 421 "misdirected: host=$host sni=$ssl_server_name\n";
		}
		return 200 "host=$host sni=$ssl_server_name\n";
	}
	server {
		listen {{.Addr1}}:{{.Port}} ssl http2;
		listen {{.Addr2}}:{{.Port}} ssl http2;
		server_name nobody.example.test;
		return 421 "misdirected: host=$host sni=$ssl_server_name\n";
	}
`)

// nginx is a running nginx.
type nginx struct {
	*server
	accessLog
}

// startNginx starts an nginx with extra directives for the http block.
func startNginx(t *testing.T, extra string) *nginx {
	t.Helper()
	path := tool(t, "nginx")
	n := &nginx{server: newServer(t)}
	n.accessLog.read = n.logFile("access.log")
	t.Cleanup(func() { n.showLogs(t) })
	n.issue(t, "cert.pem", "key.pem", full("*"))
	n.start(t, func() { n.configure(t, nginxConfig, map[string]any{"Extra": extra}) }, path, n.nginxArgs()...)
	return n
}

func (s *server) nginxArgs() []string {
	return []string{"-p", s.dir, "-c", s.configFile(), "-e", s.file("error.log")}
}
