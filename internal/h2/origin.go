package h2

// maxOriginBytes is how much ORIGIN payload is read on one connection (O4): the
// server chooses how much it sends. Every byte counts, those of the lengths
// too, so that empty entries are bounded as well. How many origins are kept of
// it is up to the set.
const maxOriginBytes = 64 << 10

// originReader parses the payload of an ORIGIN frame, which arrives in pieces
// of any size. RFC 8336 §2: a payload is a sequence of entries, each a 16-bit
// length and as many bytes of text.
type originReader struct {
	left    int    // bytes of payload still to come
	beyond  int    // how many of them, the last ones, exceed the cap; negative: none
	length  int    // an entry's length, of which lengthN bytes were read
	lengthN int    //
	entry   int    // bytes of the current entry still to come
	keep    bool   // the current entry is within the cap
	broken  bool   // an entry runs past the frame; the rest is not parsed
	text    []byte // the accepted entries, one after the other
	ends    []int  // where each of them ends in text
	dropped int    // entries beyond the cap, of which the lengths alone are read
}

// begin starts a frame whose payload is n bytes, of which the first room are
// within the cap.
func (r *originReader) begin(n, room int) {
	*r = originReader{left: n, beyond: n - room}
}

// write takes the next bytes of the payload.
func (r *originReader) write(b []byte) {
	for len(b) > 0 && !r.broken {
		if r.entry > 0 {
			n := min(r.entry, len(b))
			if r.keep {
				r.text = append(r.text, b[:n]...)
			}
			r.entry -= n
			r.left -= n
			b = b[n:]
			continue
		}
		r.length = r.length<<8 | int(b[0])
		r.lengthN++
		r.left--
		b = b[1:]
		if r.lengthN == 2 {
			r.beginEntry(r.length)
			r.length, r.lengthN = 0, 0
		}
	}
}

func (r *originReader) beginEntry(n int) {
	if n > r.left {
		r.broken = true
		return
	}
	r.entry = n
	r.keep = r.left-n >= r.beyond
	if !r.keep {
		r.dropped++
		return
	}
	r.ends = append(r.ends, len(r.text)+n)
}

// end returns what the frame listed and lets go of its memory.
func (r *originReader) end() (entries []string, dropped int) {
	if len(r.ends) > 0 {
		entries = make([]string, 0, len(r.ends))
		text, start := string(r.text), 0
		for _, end := range r.ends {
			entries = append(entries, text[start:end])
			start = end
		}
	}
	dropped = r.dropped
	*r = originReader{}
	return entries, dropped
}
