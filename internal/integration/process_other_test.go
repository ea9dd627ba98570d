//go:build !linux

package integration

import "os/exec"

// dieWithParent needs what only Linux has.
func dieWithParent(*exec.Cmd) {}
