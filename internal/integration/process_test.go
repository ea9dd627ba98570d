package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	startLimit = 20 * time.Second       // from the start of a server to its readiness
	stopLimit  = 10 * time.Second       // from SIGTERM to SIGKILL
	pollEvery  = 10 * time.Millisecond  // between looks at something that will come
	readyLimit = 500 * time.Millisecond // for one try of a readiness check
)

// process is a server that a test has started.
type process struct {
	cmd    *exec.Cmd
	output lockedBuffer  // stdout and stderr
	ended  chan struct{} // closed when the process has ended
	err    error         // of Wait; valid once ended is closed
}

// startProcess starts a server and waits until ready returns nil, which is
// tried again and again, each time with a context that ends soon. If the
// server ends before, or does not become ready, that is the error. A server
// that has started ends with the test, by its process id.
func startProcess(t *testing.T, ready func(context.Context) error, name string, args ...string) (*process, error) {
	t.Helper()
	p := &process{cmd: exec.Command(name, args...), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	p.cmd.WaitDelay = stopLimit // for children that keep the output open
	dieWithParent(p.cmd)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // ends with the process, which stop sees to
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() { p.stop(t) })

	deadline := time.Now().Add(startLimit)
	for {
		ctx, cancel := context.WithTimeout(t.Context(), readyLimit)
		err := ready(ctx)
		cancel()
		if err == nil {
			return p, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%s is not ready after %v: %w", name, startLimit, err)
		}
		select {
		case <-p.ended:
			return nil, fmt.Errorf("%s ended: %w\n%s", name, errors.Join(p.err, err), p.output.String())
		case <-time.After(pollEvery):
		}
	}
}

// signal sends a signal to the process.
func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("sending %v to the server: %v", s, err)
	}
}

// stop ends the process and waits for its end.
func (p *process) stop(t *testing.T) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails if it has ended, which is as well
	select {
	case <-p.ended:
	case <-time.After(stopLimit):
		t.Errorf("the server did not end within %v of SIGTERM", stopLimit)
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	if t.Failed() {
		t.Logf("the server's output:\n%s", p.output.String())
	}
}

// eventually calls f until it returns nil, and fails the test with its last
// error if that takes too long. It is for what a server does a little after
// its answer, such as writing a log.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	deadline := time.Now().Add(startLimit)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(pollEvery)
	}
}

// lockedBuffer is a bytes.Buffer that is safe for concurrent use.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
