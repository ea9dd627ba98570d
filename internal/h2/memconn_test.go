package h2_test

import (
	"io"
	"net"
	"sync"
	"time"
)

// memPipe returns the two ends of a buffered connection in memory. Unlike
// net.Pipe's, its writes do not wait for a reader, without which two HTTP/2
// peers would wait for each other.
func memPipe() (client, server *memConn) {
	a, b := newMemQueue(), newMemQueue()
	return &memConn{in: a, out: b}, &memConn{in: b, out: a}
}

// memConn is one end. Deadlines are not implemented.
type memConn struct {
	in, out *memQueue
}

func (c *memConn) Read(p []byte) (int, error)  { return c.in.read(p) }
func (c *memConn) Write(p []byte) (int, error) { return c.out.write(p) }

func (c *memConn) Close() error {
	c.in.end(net.ErrClosed, io.ErrClosedPipe)
	c.out.end(io.EOF, net.ErrClosed)
	return nil
}

// fill leaves no room for what c writes from now on.
func (c *memConn) fill() {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.full = true
}

// isStuck reports whether a Write waits for room.
func (c *memConn) isStuck() bool {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return c.out.waiting > 0
}

// hasInput reports whether something was written to c that it has not read.
func (c *memConn) hasInput() bool {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	return len(c.in.buf) > 0
}

func (c *memConn) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
func (c *memConn) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }
func (c *memConn) SetDeadline(time.Time) error      { return nil }
func (c *memConn) SetReadDeadline(time.Time) error  { return nil }
func (c *memConn) SetWriteDeadline(time.Time) error { return nil }

// memQueue is one direction.
type memQueue struct {
	mu                sync.Mutex
	changed           *sync.Cond
	buf               []byte
	full              bool
	waiting           int   // writes
	readErr, writeErr error // once the direction has ended
}

func newMemQueue() *memQueue {
	q := new(memQueue)
	q.changed = sync.NewCond(&q.mu)
	return q
}

func (q *memQueue) read(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.buf) == 0 && q.readErr == nil {
		q.changed.Wait()
	}
	if q.readErr != nil && q.readErr != io.EOF || len(q.buf) == 0 {
		return 0, q.readErr
	}
	n := copy(p, q.buf)
	q.buf = q.buf[n:]
	return n, nil
}

func (q *memQueue) write(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting++
	for q.full && q.writeErr == nil {
		q.changed.Wait()
	}
	q.waiting--
	if q.writeErr != nil {
		return 0, q.writeErr
	}
	q.buf = append(q.buf, p...)
	q.changed.Broadcast()
	return len(p), nil
}

func (q *memQueue) end(readErr, writeErr error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.readErr == nil || readErr != io.EOF {
		q.readErr = readErr
	}
	q.writeErr = writeErr
	q.changed.Broadcast()
}
