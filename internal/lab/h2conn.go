package lab

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	streamWindow = 1 << 20 // granted to a client's stream
	connWindow   = 4 << 20 // granted to a client's connection
	// initialWindow and initialFrameSize hold until a peer says otherwise
	// (RFC 9113 §6.5.2, §6.9.2).
	initialWindow    = 65535
	initialFrameSize = 16384
	tableSize        = 4096 // of hpack's dynamic table

	// linger is how long a connection that was closed gracefully waits for the
	// client to close it too. Closing with bytes unread would make TCP drop
	// what the client has not read.
	linger = time.Second
)

// h2conn serves HTTP/2 on a connection. Three kinds of goroutines work on it:
// one that reads (serve), one for each request, and one that writes what the
// reader has to say (flushQueue), so that the reader never waits for a client
// that reads nothing.
type h2conn struct {
	c      *Conn
	script *Server
	record *Record
	fr     *http2.Framer  // read by serve, written under the write lock
	wg     sync.WaitGroup // requests and flushQueue; added to only while not dead, or by one of them
	frozen atomic.Bool

	// The write lock is a channel because waiting for a sync.Mutex would not
	// count as durably blocked under synctest. It guards what follows, up to
	// mu. It is taken before mu, never while mu is held.
	writeLock chan struct{}
	writers   atomic.Int32 // who holds or waits for the write lock: the last one flushes
	bw        *bufio.Writer
	werr      error // writing is over
	henc      *hpack.Encoder
	hbuf      bytes.Buffer
	lower     map[string]string // header names as sent
	frameSize int               // largest the client takes

	// mu guards what follows. It is held briefly, and nothing but the record
	// is called while it is.
	mu         sync.Mutex
	cond       sync.Cond // a send window grew, or a stream or the connection ended
	dead       bool
	streams    map[uint32]*stream
	active     int    // requests whose goroutines run
	maxStream  uint32 // highest stream the client opened
	lastStream uint32 // streams above are ignored
	served     int    // requests accepted
	closing    bool   // close when active is 0
	sendWindow int64
	peerWindow int64          // of the client's new streams
	grant      int            // of our streams
	unread     int            // received on the connection, not yet granted again
	limit      uint32         // streams, as sent last
	ackedLimit uint32         // streams, as acknowledged last
	sentLimits []uint32       // of the SETTINGS not yet acknowledged
	queue      []func() error // to be written for the reader
	queueRuns  bool           // flushQueue runs
}

// serveHTTP2 serves the connection until it ends, and waits for its requests.
func serveHTTP2(c *Conn) {
	h := &h2conn{
		c:          c,
		script:     &c.endpoint.server,
		record:     &c.lab.record,
		writeLock:  make(chan struct{}, 1),
		bw:         bufio.NewWriterSize(c.tls, 32<<10),
		lower:      make(map[string]string),
		frameSize:  initialFrameSize,
		streams:    make(map[uint32]*stream),
		lastStream: math.MaxUint32,
		sendWindow: initialWindow,
		peerWindow: initialWindow,
		grant:      initialWindow,
		limit:      math.MaxUint32,
		ackedLimit: math.MaxUint32,
	}
	h.cond.L = &h.mu
	h.henc = hpack.NewEncoder(&h.hbuf)
	h.fr = http2.NewFramer(h.bw, c.tls)
	h.fr.AllowIllegalWrites = true // scripts may
	h.fr.SetReuseFrames()
	h.fr.ReadMetaHeaders = hpack.NewDecoder(tableSize, nil)

	if err := h.hello(); err == nil {
		h.say(h.read())
	}
	h.end()
	h.wg.Wait()
}

// hello sends what the server sends first and calls OnConn.
func (h *h2conn) hello() error {
	if err := sleep(h.c.ctx, h.script.SettingsDelay); err != nil {
		return err
	}
	settings := []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: streamWindow}}
	if h.script.MaxStreams > 0 {
		settings = append(settings, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: h.script.MaxStreams})
	}
	err := h.write(func() error {
		if err := h.writeSettings(append(settings, h.script.Settings...)); err != nil {
			return err
		}
		if h.script.Origins != nil {
			if err := h.writeOrigin(h.script.Origins); err != nil {
				return err
			}
		}
		h.c.h2.Store(h) // scripts wait for the write lock: what they send comes after
		return h.fr.WriteWindowUpdate(0, connWindow-initialWindow)
	})
	if err != nil {
		return err
	}
	if h.script.OnConn != nil {
		h.script.OnConn(h.c)
	}
	return nil
}

// read handles the client's frames until one is not as it should be or the
// connection ends.
func (h *h2conn) read() error {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(h.c.tls, preface); err != nil {
		return err
	}
	if string(preface) != http2.ClientPreface {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	for first := true; ; first = false {
		f, err := h.fr.ReadFrame()
		if h.frozen.Load() {
			_, _ = io.Copy(io.Discard, h.c.tls)
			return errConnEnded
		}
		if err == nil {
			if _, ok := f.(*http2.SettingsFrame); first && !ok {
				return http2.ConnectionError(http2.ErrCodeProtocol) // RFC 9113 §3.4
			}
			err = h.handle(f)
		}
		var streamErr http2.StreamError
		switch {
		case errors.As(err, &streamErr):
			h.fail(streamErr)
		case errors.Is(err, http2.ErrFrameTooLarge):
			return http2.ConnectionError(http2.ErrCodeFrameSize)
		case err != nil:
			return err
		}
	}
}

func (h *h2conn) handle(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		return h.headers(f)
	case *http2.DataFrame:
		return h.data(f)
	case *http2.SettingsFrame:
		return h.settings(f)
	case *http2.WindowUpdateFrame:
		h.windowUpdate(f)
	case *http2.RSTStreamFrame:
		h.record.change(func() { h.c.row.Resets++ })
		h.mu.Lock()
		st := h.streams[f.StreamID]
		h.mu.Unlock()
		if st != nil {
			st.abort(http2.StreamError{StreamID: f.StreamID, Code: f.ErrCode, Cause: errClientReset})
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			h.record.change(func() { h.c.row.Pings++ })
			data := f.Data
			h.later(func() error { return h.fr.WritePing(true, data) })
		}
	case *http2.PushPromiseFrame:
		return http2.ConnectionError(http2.ErrCodeProtocol) // RFC 9113 §8.4
	}
	return nil // GOAWAY, PRIORITY and unknown frames ask for nothing
}

// settings applies the client's settings, or its acknowledgement of ours.
func (h *h2conn) settings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if len(h.sentLimits) > 0 {
			h.ackedLimit, h.sentLimits = h.sentLimits[0], h.sentLimits[1:]
		}
		return nil
	}
	frameSize, table := uint32(0), int64(-1)
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		switch s.ID {
		case http2.SettingInitialWindowSize:
			h.mu.Lock()
			defer h.mu.Unlock()
			// RFC 9113 §6.9.2: open streams' windows change by the difference,
			// and may become negative.
			delta := int64(s.Val) - h.peerWindow
			h.peerWindow = int64(s.Val)
			for _, st := range h.streams {
				st.sendWindow += delta
			}
			h.cond.Broadcast()
		case http2.SettingMaxFrameSize:
			frameSize = s.Val
		case http2.SettingHeaderTableSize:
			table = int64(s.Val)
		}
		return nil
	})
	if err != nil {
		return err
	}
	h.later(func() error {
		if frameSize > 0 {
			h.frameSize = int(frameSize)
		}
		if table >= 0 {
			h.henc.SetMaxDynamicTableSizeLimit(uint32(table))
			h.henc.SetMaxDynamicTableSize(uint32(min(table, tableSize)))
		}
		return h.fr.WriteSettingsAck()
	})
	return nil
}

func (h *h2conn) windowUpdate(f *http2.WindowUpdateFrame) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f.StreamID == 0 {
		h.sendWindow += int64(f.Increment)
	} else if st := h.streams[f.StreamID]; st != nil {
		st.sendWindow += int64(f.Increment)
	}
	h.cond.Broadcast()
}

// say tells the client of a protocol error before the connection is closed.
func (h *h2conn) say(err error) {
	var code http2.ConnectionError
	if !errors.As(err, &code) {
		return
	}
	_ = h.c.tls.SetDeadline(time.Now().Add(linger))
	h.mu.Lock()
	last := h.maxStream
	h.mu.Unlock()
	if h.write(func() error { return h.fr.WriteGoAway(last, http2.ErrCode(code), []byte(err.Error())) }) == nil {
		_ = h.write(h.closeWrite)
		_, _ = io.Copy(io.Discard, h.c.tls)
	}
}

// end cuts the connection and ends its requests.
func (h *h2conn) end() {
	h.c.Cut()
	h.mu.Lock()
	h.dead = true
	var streams []*stream
	for _, st := range h.streams {
		streams = append(streams, st)
	}
	h.cond.Broadcast()
	h.mu.Unlock()
	for _, st := range streams {
		st.abort(errConnEnded)
	}
}
