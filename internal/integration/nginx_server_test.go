package integration

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"text/template"
)

// nginxConfig is the configuration of every test. One wildcard certificate
// covers all hosts:
//
//   - b answers 421 unless the connection was opened for it;
//   - nobody answers 421 always;
//   - any other name is served.
var nginxConfig = template.Must(template.New("nginx.conf").Parse(`
{{if .Root}}user root;{{end}}
daemon off;
worker_processes 1;
pid {{.Dir}}/pid;
error_log {{.Dir}}/error.log info;
events { worker_connections 256; }
http {
	log_format fields "$connection $connection_requests $server_addr $ssl_server_name $host $request_method $status $server_protocol";
	access_log {{.Dir}}/access.log fields;
	client_body_temp_path {{.Dir}}/body;
	proxy_temp_path {{.Dir}}/proxy;
	fastcgi_temp_path {{.Dir}}/fastcgi;
	uwsgi_temp_path {{.Dir}}/uwsgi;
	scgi_temp_path {{.Dir}}/scgi;
	default_type text/plain;
	ssl_certificate {{.Dir}}/cert.pem;
	ssl_certificate_key {{.Dir}}/key.pem;
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
}
`))

// nginx is a running nginx.
type nginx struct{ *server }

// startNginx starts an nginx with extra directives for the http block.
func startNginx(t *testing.T, extra string) *nginx {
	t.Helper()
	path := tool(t, "nginx")
	n := &nginx{newServer(t)}
	t.Cleanup(func() { n.showLogs(t) })
	n.issue(t, "cert.pem", "key.pem", "*.example.test")
	n.start(t, func() { n.configure(t, extra) }, path, "-p", n.dir, "-c", n.file("nginx.conf"), "-e", n.file("error.log"))
	return n
}

func (n *nginx) configure(t *testing.T, extra string) {
	t.Helper()
	f, err := os.Create(n.file("nginx.conf"))
	if err != nil {
		t.Fatal(err)
	}
	err = nginxConfig.Execute(f, map[string]any{
		"Root": os.Getuid() == 0, // workers of another user could not enter the directory
		"Dir":  n.dir, "Port": n.port, "Addr1": addr1, "Addr2": addr2, "Extra": extra,
	})
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func (n *nginx) showLogs(t *testing.T) {
	if !t.Failed() {
		return
	}
	for _, name := range []string{"error.log", "access.log"} {
		text, err := os.ReadFile(n.file(name))
		t.Logf("%s: %v\n%s", name, err, text)
	}
}

// logged is a line of nginx's access log.
type logged struct {
	conn   int // number of the connection
	nth    int // which of the connection's requests it is, from 1
	addr   string
	sni    string // without the domain
	host   string // without the domain
	method string
	status int
}

func (l logged) String() string {
	return fmt.Sprintf("%s %s on connection %d (SNI %s): %d", l.method, l.host, l.conn, l.sni, l.status)
}

// log returns the requests that nginx has answered, once there are want. A
// line is written after the answer is sent.
func (n *nginx) log(t *testing.T, want int) []logged {
	t.Helper()
	var lines []logged
	eventually(t, func() error {
		lines = nil
		text, err := os.ReadFile(n.file("access.log"))
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			var l logged
			var proto string
			if _, err := fmt.Sscan(line, &l.conn, &l.nth, &l.addr, &l.sni, &l.host, &l.method, &l.status, &proto); err != nil {
				return fmt.Errorf("line %q: %w", line, err)
			}
			if proto != "HTTP/2.0" {
				t.Fatalf("not HTTP/2: %s", line)
			}
			l.sni, l.host = short(l.sni), short(l.host)
			lines = append(lines, l)
		}
		if len(lines) < want {
			return fmt.Errorf("nginx has logged %d requests, want %d", len(lines), want)
		}
		return nil
	})
	if len(lines) != want {
		t.Fatalf("nginx has logged %d requests, want %d:\n%v", len(lines), want, lines)
	}
	return lines
}

// conns returns how many connections carried the requests.
func conns(lines []logged) int {
	seen := make(map[int]bool)
	for _, l := range lines {
		seen[l.conn] = true
	}
	return len(seen)
}

// count returns how many requests to a host were answered with a status.
func count(lines []logged, host string, status int) int {
	n := 0
	for _, l := range lines {
		if l.host == host && l.status == status {
			n++
		}
	}
	return n
}
