package soak

import (
	"hash/crc32"
	"io"
)

// contentSize is the period of content. A request's content starts at a place
// of its own in it, so that bytes of one request are not taken for another's.
const contentSize = 1 << 16

// content is where the bodies of requests and answers come from.
type content []byte

func newContent(seed uint64) content {
	c := make(content, contentSize)
	d := roll(seed, 'c')
	for i := range c {
		c[i] = byte(d.Uint32())
	}
	return c
}

// asked returns n bytes that the request of an id has as its body.
func (c content) asked(id uint64, n int64) *stretch { return c.from(id*7919, n) }

// answered returns n bytes that the answer to the request of an id consists of.
func (c content) answered(id uint64, n int64) *stretch { return c.from(id*7919+contentSize/2, n) }

func (c content) from(at uint64, n int64) *stretch {
	return &stretch{content: c, at: int(at % contentSize), left: n}
}

// stretch is a part of the content, to be read.
type stretch struct {
	content content
	at      int
	left    int64
}

func (s *stretch) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), s.left)]
	n := copy(p, s.content[s.at:])
	s.at = (s.at + n) % contentSize
	s.left -= int64(n)
	return n, nil
}

// sum returns the checksum of what is left to be read.
func (s stretch) sum() uint32 {
	h := crc32.NewIEEE()
	_, _ = io.Copy(h, &s) // neither fails
	return h.Sum32()
}
