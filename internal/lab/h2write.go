package lab

import (
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// typeOrigin is the ORIGIN frame's type (RFC 8336 §2).
const typeOrigin http2.FrameType = 0xc

// lock takes the write lock. After an error it is not held.
func (h *h2conn) lock() error {
	h.writers.Add(1)
	h.writeLock <- struct{}{}
	err := h.werr
	frozen := err == nil && h.frozen.Load()
	if frozen {
		err = errConnEnded
	}
	if err != nil {
		h.writers.Add(-1)
		<-h.writeLock
	}
	if frozen {
		<-h.c.ctx.Done()
	}
	return err
}

// unlock gives the write lock back. It flushes, unless another writer waits,
// which then does. Err is an error of the framer: writing is over after it.
func (h *h2conn) unlock(err error) error {
	if h.writers.Add(-1) == 0 && err == nil && h.werr == nil {
		err = h.bw.Flush()
	}
	if err != nil && h.werr == nil {
		h.werr = err
		h.c.Cut()
	}
	<-h.writeLock
	return err
}

// write runs f with the write lock held. The reader must not call it
// between frames: see later.
func (h *h2conn) write(f func() error) error {
	if err := h.lock(); err != nil {
		return err
	}
	return h.unlock(f())
}

// later has f run with the write lock held, soon and in order. If nothing else
// does it, a goroutine is started that ends when the queue is empty; serveHTTP2
// waits for it.
func (h *h2conn) later(f func() error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead {
		return
	}
	h.queue = append(h.queue, f)
	if !h.queueRuns {
		h.queueRuns = true
		h.wg.Go(h.flushQueue)
	}
}

func (h *h2conn) flushQueue() {
	for {
		h.mu.Lock()
		queue := h.queue
		h.queue = nil
		h.queueRuns = len(queue) > 0
		h.mu.Unlock()
		if len(queue) == 0 {
			return
		}
		_ = h.write(func() error {
			for _, f := range queue {
				if err := f(); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// closeWrite sends close-notify and gives the client some time to close the
// connection. Later writes fail without a further effect. The write lock is
// held.
func (h *h2conn) closeWrite() error {
	if h.werr != nil {
		return nil
	}
	if err := h.bw.Flush(); err != nil {
		return err
	}
	h.werr = errConnEnded
	_ = h.c.tls.CloseWrite()
	_ = h.c.tls.SetReadDeadline(time.Now().Add(linger))
	return nil
}

// writeSettings sends settings and notes those that concern us. The write lock
// is held.
func (h *h2conn) writeSettings(settings []http2.Setting) error {
	h.mu.Lock()
	for _, s := range settings {
		switch s.ID {
		case http2.SettingMaxConcurrentStreams:
			h.limit = s.Val
		case http2.SettingInitialWindowSize:
			h.grant = int(s.Val)
		}
	}
	h.sentLimits = append(h.sentLimits, h.limit)
	h.mu.Unlock()
	return h.fr.WriteSettings(settings...)
}

// writeOrigin sends as many ORIGIN frames as it takes, and at least one. The
// write lock is held.
func (h *h2conn) writeOrigin(origins []string) error {
	var payload []byte
	for _, origin := range origins {
		if n := len(origin); n > math.MaxUint16 || 2+n > h.frameSize {
			return http2.ErrFrameTooLarge
		} else if len(payload)+2+n > h.frameSize {
			if err := h.fr.WriteRawFrame(typeOrigin, 0, 0, payload); err != nil {
				return err
			}
			payload = payload[:0]
		}
		payload = append(payload, byte(len(origin)>>8), byte(len(origin)))
		payload = append(payload, origin...)
	}
	return h.fr.WriteRawFrame(typeOrigin, 0, 0, payload)
}

// writeHeader sends a response's header. The trailers' names are left out. The
// write lock is held.
func (h *h2conn) writeHeader(stream uint32, status int, header http.Header, trailers []string, last bool) error {
	h.hbuf.Reset()
	h.field(":status", strconv.Itoa(status))
	for name, values := range header {
		switch name {
		case "Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade":
			continue // RFC 9113 §8.2.2
		}
		if strings.HasPrefix(name, http.TrailerPrefix) || slices.Contains(trailers, name) {
			continue
		}
		h.fields(name, values)
	}
	return h.writeBlock(stream, last)
}

// writeTrailer sends a response's trailer, which ends the stream. The write
// lock is held.
func (h *h2conn) writeTrailer(stream uint32, trailer http.Header) error {
	h.hbuf.Reset()
	for name, values := range trailer {
		h.fields(name, values)
	}
	return h.writeBlock(stream, true)
}

func (h *h2conn) fields(name string, values []string) {
	lower, ok := h.lower[name]
	if !ok {
		lower = strings.ToLower(name)
		h.lower[name] = lower
	}
	for _, value := range values {
		h.field(lower, value)
	}
}

func (h *h2conn) field(name, value string) {
	_ = h.henc.WriteField(hpack.HeaderField{Name: name, Value: value}) // a bytes.Buffer does not fail
}

// writeBlock sends the encoded fields as HEADERS and CONTINUATION.
func (h *h2conn) writeBlock(stream uint32, last bool) error {
	block := h.hbuf.Bytes()
	part := block[:min(len(block), h.frameSize)]
	block = block[len(part):]
	err := h.fr.WriteHeaders(http2.HeadersFrameParam{
		StreamID:      stream,
		BlockFragment: part,
		EndStream:     last,
		EndHeaders:    len(block) == 0,
	})
	for err == nil && len(block) > 0 {
		part = block[:min(len(block), h.frameSize)]
		block = block[len(part):]
		err = h.fr.WriteContinuation(stream, len(block) == 0, part)
	}
	return err
}

// writeData sends DATA frames. The write lock is held, the windows have been
// charged.
func (h *h2conn) writeData(stream uint32, p []byte, last bool) error {
	for {
		part := p[:min(len(p), h.frameSize)]
		p = p[len(part):]
		if err := h.fr.WriteData(stream, last && len(p) == 0, part); err != nil || len(p) == 0 {
			return err
		}
	}
}

// charge takes up to want bytes from the stream's and the connection's send
// windows. If that is none and wait is set, it waits for some.
func (h *h2conn) charge(st *stream, want int, wait bool) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		if st.err != nil {
			return 0, st.err
		}
		n := max(min(int64(want), st.sendWindow, h.sendWindow), 0)
		if n > 0 || want == 0 || !wait {
			st.sendWindow -= n
			h.sendWindow -= n
			return int(n), nil
		}
		h.cond.Wait()
	}
}

// discharge gives back what was taken from the connection's window for a stream
// that ended.
func (h *h2conn) discharge(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sendWindow += int64(n)
	h.cond.Broadcast()
}

// consumed notes that n bytes of a request's body are out of the way and
// returns how much to grant the client anew, on the connection and on the
// stream. St is nil if it has ended.
func (h *h2conn) consumed(st *stream, n int) (onConn, onStream int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.unread += n; h.unread >= connWindow/4 {
		onConn, h.unread = h.unread, 0
	}
	if st != nil && !st.remoteDone && !st.closed {
		if st.unread += n; st.unread >= h.grant/4 {
			onStream, st.unread = st.unread, 0
		}
	}
	return onConn, onStream
}

// regrant sends the WINDOW_UPDATEs that consumed found due. The write lock is
// held.
func (h *h2conn) regrant(stream uint32, onConn, onStream int) error {
	if onConn > 0 {
		if err := h.fr.WriteWindowUpdate(0, uint32(onConn)); err != nil {
			return err
		}
	}
	if onStream > 0 {
		return h.fr.WriteWindowUpdate(stream, uint32(onStream))
	}
	return nil
}

// drop grants anew, on the connection, n bytes that nobody will read.
func (h *h2conn) drop(n int) {
	if onConn, _ := h.consumed(nil, n); onConn > 0 {
		h.later(func() error { return h.regrant(0, onConn, 0) })
	}
}
