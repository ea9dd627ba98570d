package lab

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// pipeBuffer is how many bytes one direction of a pipe holds before writes
// block. It is about what a loopback socket holds, so a peer that does not read
// is noticed.
const pipeBuffer = 256 << 10

// Pipe returns the two ends of a buffered, full-duplex connection in memory
// with made-up addresses. See [PipeAddr].
func Pipe() (client, server net.Conn) {
	return PipeAddr(netip.MustParseAddrPort("192.0.2.1:49152"), netip.MustParseAddrPort("192.0.2.2:443"))
}

// PipeAddr returns the two ends of a buffered, full-duplex connection in memory
// whose addresses are *net.TCPAddr values of the ones given. In contrast to
// net.Pipe a write returns before it is read, which HTTP/2 peers rely on.
// Deadlines work. After one end is closed, the other reads what was written
// before and then io.EOF, and its writes fail with EPIPE.
func PipeAddr(clientAddr, serverAddr netip.AddrPort) (client, server net.Conn) {
	up, down := newHalf(), newHalf()
	ca, sa := net.TCPAddrFromAddrPort(clientAddr), net.TCPAddrFromAddrPort(serverAddr)
	return &pipeEnd{in: down, out: up, local: ca, remote: sa},
		&pipeEnd{in: up, out: down, local: sa, remote: ca}
}

type pipeEnd struct {
	in, out       *half
	local, remote net.Addr
}

func (p *pipeEnd) Read(b []byte) (int, error)  { return p.in.read(b) }
func (p *pipeEnd) Write(b []byte) (int, error) { return p.out.write(b) }
func (p *pipeEnd) LocalAddr() net.Addr         { return p.local }
func (p *pipeEnd) RemoteAddr() net.Addr        { return p.remote }

func (p *pipeEnd) Close() error {
	p.in.closeReader()
	p.out.closeWriter()
	return nil
}

func (p *pipeEnd) SetDeadline(t time.Time) error {
	if err := p.SetReadDeadline(t); err != nil {
		return err
	}
	return p.SetWriteDeadline(t)
}

func (p *pipeEnd) SetReadDeadline(t time.Time) error  { return p.in.setDeadline(&p.in.reads, t) }
func (p *pipeEnd) SetWriteDeadline(t time.Time) error { return p.out.setDeadline(&p.out.writes, t) }

// half is one direction of a pipe.
type half struct {
	mu           sync.Mutex // guards what follows; held only for copying
	cond         sync.Cond  // something changed
	buf          []byte     // written and not yet read: buf[off:]
	off          int
	readerClosed bool
	writerClosed bool
	reads        deadline
	writes       deadline
}

// deadline is the deadline of one side of a half.
type deadline struct {
	closed  *bool // the side's closed flag
	expired bool
	timer   *time.Timer
	gen     int // tells an expiry of an earlier deadline from one of this
}

func newHalf() *half {
	h := new(half)
	h.cond.L = &h.mu
	h.reads.closed, h.writes.closed = &h.readerClosed, &h.writerClosed
	return h
}

func (h *half) read(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.readerClosed:
			return 0, net.ErrClosed
		case h.reads.expired:
			return 0, os.ErrDeadlineExceeded
		case len(b) == 0:
			return 0, nil
		case h.off < len(h.buf):
			n := copy(b, h.buf[h.off:])
			if h.off += n; h.off == len(h.buf) {
				h.buf, h.off = h.buf[:0], 0
			}
			h.cond.Broadcast()
			return n, nil
		case h.writerClosed:
			return 0, io.EOF
		}
		h.cond.Wait()
	}
}

func (h *half) write(b []byte) (n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.writerClosed:
			return n, net.ErrClosed
		case h.writes.expired:
			return n, os.ErrDeadlineExceeded
		case h.readerClosed:
			return n, os.NewSyscallError("write", syscall.EPIPE)
		case len(b) == 0:
			return n, nil
		}
		if room := pipeBuffer - (len(h.buf) - h.off); room > 0 {
			m := min(room, len(b))
			if h.off > 0 && len(h.buf)+m > cap(h.buf) {
				h.buf, h.off = h.buf[:copy(h.buf, h.buf[h.off:])], 0
			}
			h.buf = append(h.buf, b[:m]...)
			n, b = n+m, b[m:]
			h.cond.Broadcast()
			continue
		}
		h.cond.Wait()
	}
}

func (h *half) closeReader() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.readerClosed = true
	h.buf, h.off = nil, 0
	h.reads.stop()
	h.cond.Broadcast()
}

func (h *half) closeWriter() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writerClosed = true
	h.writes.stop()
	h.cond.Broadcast()
}

// setDeadline sets d, which is one of the half's two.
func (h *half) setDeadline(d *deadline, t time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if *d.closed {
		return net.ErrClosed
	}
	d.stop()
	d.expired = false
	if !t.IsZero() {
		if wait := time.Until(t); wait <= 0 {
			d.expired = true
		} else {
			gen := d.gen
			d.timer = time.AfterFunc(wait, func() {
				h.mu.Lock()
				defer h.mu.Unlock()
				if d.gen == gen {
					d.expired = true
					h.cond.Broadcast()
				}
			})
		}
	}
	h.cond.Broadcast()
	return nil
}

func (d *deadline) stop() {
	d.gen++
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}
