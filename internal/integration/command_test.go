package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// buildCommand builds the command and returns its path.
func buildCommand(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "h2coalesce")
	build := exec.Command(tool(t, "go"), "build", "-o", path, "github.com/h2coalesce/h2coalesce/cmd/h2coalesce")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// runCommand runs the built command and returns what it prints.
func runCommand(t *testing.T, path string, args ...string) []byte {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil || stderr.Len() > 0 {
		t.Fatalf("%v: %v\n%s%s", cmd.Args, err, stderr.String(), stdout.String())
	}
	return stdout.Bytes()
}

// fetched is what the command says, in JSON, of one URL or of all.
type fetched struct {
	Status  int    `json:"status,omitempty"`
	Proto   string `json:"protocol,omitempty"`
	Conn    int    `json:"conn,omitempty"`
	Host    string `json:"conn_host,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Retried int    `json:"retried,omitempty"`
	Summary *struct {
		Requests    int `json:"requests"`
		Connections int `json:"connections"`
		Shared      int `json:"shared"`
		Retried     int `json:"retried"`
	} `json:"summary,omitempty"`
}

func TestNginx_CommandTellsWhatIsSharedAndRetried(t *testing.T) {
	command := buildCommand(t)
	n := startNginx(t, "")
	args := []string{"get", "-cacert", n.caFile()}
	for _, name := range []string{"a", "b", "c"} {
		args = append(args, "-resolve", fmt.Sprintf("%s.example.test:%d:%s", name, n.port, addr1))
	}
	urls := []string{n.url("a"), n.url("c"), n.url("b"), n.url("b")}

	text := runCommand(t, command, append(args, urls...)...)
	for _, want := range []string{
		`dialed +conn 1 .*HTTP/2\.0 +127\.0\.0\.1:`,
		`shared +conn 1 \(a\.example\.test\) +HTTP/2\.0`,
		`421 +conn 1 \(a\.example\.test\) +retried`,
		`dialed +conn 2 `,
		`own +conn 2 `,
		`4 requests, 2 connections, 2 handshakes, 1 shared, 1 retried, 0 failed`,
	} {
		if !regexp.MustCompile(want).Match(text) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	lines := n.log(t, 5)
	if got := count(lines, "b", 421); got != 1 {
		t.Errorf("%d answers 421 for b, want 1", got)
	}

	var got, want []fetched
	dec := json.NewDecoder(bytes.NewReader(runCommand(t, command, append(append(args, "-json"), urls...)...)))
	for {
		var f fetched
		err := dec.Decode(&f)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, f)
	}
	want = []fetched{
		{Status: 200, Proto: "HTTP/2.0", Conn: 1, Host: "a.example.test", Reason: "dialed"},
		{Status: 200, Proto: "HTTP/2.0", Conn: 1, Host: "a.example.test", Reason: "shared"},
		{Status: 200, Proto: "HTTP/2.0", Conn: 2, Host: "b.example.test", Reason: "dialed", Retried: 1},
		{Status: 200, Proto: "HTTP/2.0", Conn: 2, Host: "b.example.test", Reason: "own"},
		{Summary: &struct {
			Requests    int `json:"requests"`
			Connections int `json:"connections"`
			Shared      int `json:"shared"`
			Retried     int `json:"retried"`
		}{4, 2, 1, 1}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-json (-want +got):\n%s", diff)
	}
}
