package soak

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// openFiles returns what the open files of the process are, by descriptor.
func openFiles(t *testing.T) map[string]string {
	t.Helper()
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string)
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was the directory itself
		}
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = target
	}
	return files
}
