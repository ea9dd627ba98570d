package main

import (
	"bytes"
	"cmp"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/h2coalesce/h2coalesce/internal/lab"
)

func TestMain(m *testing.M) {
	// The lab's hosts are not to be asked of a proxy.
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
		os.Unsetenv(name)
	}
	goleak.VerifyTestMain(m)
}

// command runs the command and returns what it prints, and its exit code.
func command(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(t.Context(), args, &out, &err)
	return out.String(), err.String(), code
}

func newLab(t *testing.T, servers map[string]lab.Server) *lab.Lab {
	t.Helper()
	l, err := lab.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	for ip, s := range servers {
		if err := l.Serve(ip, s); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// caFile writes the lab's CA to a file.
func caFile(t *testing.T, l *lab.Lab) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, l.CA().PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestHelp(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"help"}, helpText},
		{[]string{"-h"}, helpText},
		{[]string{"--help"}, helpText},
		{[]string{"help", "get"}, getHelpText},
		{[]string{"get", "-h"}, getHelpText},
		{[]string{"get", "-json", "https://a.example", "--help"}, getHelpText},
		{[]string{"get", "https://a.example", "explain", "-h"}, getHelpText},
		{[]string{"help", "explain"}, explainHelpText},
		{[]string{"explain", "-h"}, explainHelpText},
	} {
		stdout, stderr, code := command(t, test.args...)
		if stdout != test.want || stderr != "" || code != 0 {
			t.Errorf("%q: exit %d, %q, %q", test.args, code, stdout, stderr)
		}
		for line := range strings.Lines(stdout) {
			if len(line) > 81 {
				t.Errorf("%q: more than 80 columns: %s", test.args, line)
			}
		}
	}
}

func TestWrongUsage(t *testing.T) {
	noPEM := filepath.Join(t.TempDir(), "no.pem")
	if err := os.WriteFile(noPEM, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	const u = "https://a.example/"
	for _, test := range []struct {
		args []string
		want string // in the message
	}{
		{[]string{"fetch"}, `unknown command "fetch"`},
		{[]string{""}, `unknown command ""`},
		{[]string{"-"}, `unknown command "-"`},
		{[]string{"-verbose"}, "not defined: -verbose"},
		{[]string{"-json", "get"}, `unexpected argument "get"`},
		{[]string{"help", "me"}, `no help on ["me"]`},
		{[]string{"help", ""}, `no help on [""]`},
		{[]string{"help", "get", "explain"}, `no help on ["get" "explain"]`},
		{[]string{"get"}, "no URL"},
		{[]string{"get", "-json"}, "no URL"},
		{[]string{"get", "-k", u}, "not defined: -k"},
		{[]string{"get", u, "-k"}, "not defined: -k"},
		{[]string{"get", u, "--", "-json"}, `URL 2: "-json": want https://`},
		{[]string{"get", "a.example"}, `URL 1: "a.example": want https://`},
		{[]string{"get", u, "ftp://a.example/"}, `URL 2: "ftp://a.example/": want https://`},
		{[]string{"get", "https:///path"}, `"https:///path": no host`},
		{[]string{"get", "https://[::1/"}, "missing ']'"},
		{[]string{"get", "https://user:secret@/"}, `"https://xxxxx@/": no host`},
		{[]string{"get", "https://user:sec/ret@a.example/"}, "not shown"},
		{[]string{"get", "user:secret@a.example/"}, "not shown"},
		{[]string{"get", "https:user:secret@a.example/"}, "not shown"},
		{[]string{"get", "ftp://token@a.example/"}, `"ftp://xxxxx@a.example/": want https://`},
		{[]string{"get", "-match", "all", u}, `-match: unknown match "all": want address`},
		{[]string{"get", "-parallel", "0", u}, "-parallel 0: want 1 or more"},
		{[]string{"get", "-parallel", "x", u}, `"x" for flag -parallel`},
		{[]string{"get", "-timeout", "30", u}, `"30" for flag -timeout`},
		{[]string{"get", "-timeout", "-1s", u}, "-timeout -1s: want more than 0"},
		{[]string{"get", "-cacert", "missing.pem", u}, "-cacert: open missing.pem"},
		{[]string{"get", "-cacert", noPEM, u}, "no certificate in PEM"},
		{[]string{"get", "-H", "Bearer secret", u}, "-H is not of the form"},
		{[]string{"get", "-resolve", "a.example", u}, `-resolve "a.example": want HOST:PORT:ADDR`},
		{[]string{"get", "-resolve", "a.example:443:192.0.2.1", u, "https://a.example:8443/"}, "addresses for port 443, but not for port 8443"},
		{[]string{"get", "-resolve", "a.example:443:192.0.2.1", u, "explain", "https://a.example:8443/"}, "get: -resolve gives a.example addresses for port 443,"},
		{[]string{"get", "-resolve", "*:80:192.0.2.1", "http://a.example/"}, "no effect on plain http: http://a.example/"},
		{[]string{"explain"}, "explain: no URL"},
		{[]string{"explain", "get"}, "explain: no URL"},
		{[]string{"explain", "-json", "get", u}, `explain: no URL behind the word "explain"`},
		{[]string{"get", u, "explain"}, `get: no URL behind the word "explain"`},
		{[]string{"get", u, "explain", "get", u}, `get: no URL behind the word "explain"`},
		{[]string{"get", u, "explain", "--", "get"}, `get: no URL behind the word "explain"`},
		{[]string{"get", u, "explain", u, "get", "-json"}, `get: no URL behind the word "get"`},
		{[]string{"get", u, "Explain", u}, `URL 2: "Explain": want https://`},
		{[]string{"get", u, "explain", u, "get", "fetch"}, `URL 3: "fetch": want https://`},
		{[]string{"explain", "https://user:sec/ret@a.example/"}, "not shown"},
		{[]string{"explain", "-k", u}, "explain: flag provided but not defined: -k"},
	} {
		stdout, stderr, code := command(t, test.args...)
		lines := strings.Split(stderr, "\n")
		usage, _ := manual(test.args[0])
		usage = cmp.Or(usage, usageLine)
		if code != 2 || stdout != "" || len(lines) != 3 || !strings.Contains(lines[0], test.want) || lines[1] != usage {
			t.Errorf("%q: exit %d, printing %q and %q, want %q", test.args, code, stdout, stderr, test.want)
		}
		if strings.Contains(stderr, "sec") || strings.Contains(stderr, "token") {
			t.Errorf("%q: credentials are shown: %s", test.args, stderr)
		}
	}
}
