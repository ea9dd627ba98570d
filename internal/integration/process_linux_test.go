package integration

import (
	"os/exec"
	"syscall"
)

// dieWithParent has the server end also when the test binary is killed, or
// panics because a test ran out of time: then nothing is cleaned up.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
}
