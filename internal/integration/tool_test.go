package integration

import (
	"os"
	"os/exec"
	"testing"
)

// tool returns the path of a program that the test drives. Where it is not
// installed the test is skipped, but fails under CI: there, a test that does
// not run is a test that nobody misses.
func tool(t *testing.T, name string) string {
	t.Helper()
	// Servers are kept where an ordinary user's PATH does not lead.
	for _, file := range []string{name, "/usr/sbin/" + name, "/usr/local/sbin/" + name} {
		if path, err := exec.LookPath(file); err == nil {
			return path
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is not installed, and CI is set", name)
	}
	t.Skipf("%s is not installed", name)
	return ""
}
