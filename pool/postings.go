package pool

import "slices"

// postings holds certificates by the names that they cover. Nearly every name
// is in one certificate only, so a name with one costs no list.
type postings[K comparable] struct {
	first map[K]*certificate   // the certificate that was entered first
	rest  map[K][]*certificate // those after it, where there are some
}

// of returns the certificates that cover k; first is nil if there is none.
func (x *postings[K]) of(k K) (first *certificate, rest []*certificate) {
	first = x.first[k]
	if first != nil && len(x.rest) > 0 {
		rest = x.rest[k]
	}
	return first, rest
}

func (x *postings[K]) enter(k K, c *certificate) {
	if x.first[k] != nil {
		if x.rest == nil {
			x.rest = make(map[K][]*certificate)
		}
		x.rest[k] = append(x.rest[k], c)
		return
	}
	if x.first == nil {
		x.first = make(map[K]*certificate)
	}
	x.first[k] = c
}

// leave undoes enter. Lists are replaced rather than shortened in place, so that
// one that is being iterated stays whole. A map that has become empty is let go
// of, since it would keep the room for all that was in it.
func (x *postings[K]) leave(k K, c *certificate) {
	rest := x.rest[k]
	switch {
	case x.first[k] != c:
		rest = slices.DeleteFunc(slices.Clone(rest), func(o *certificate) bool { return o == c })
	case len(rest) > 0:
		x.first[k], rest = rest[0], slices.Clone(rest[1:])
	default:
		if delete(x.first, k); len(x.first) == 0 {
			x.first = nil
		}
	}
	if len(rest) > 0 {
		x.rest[k] = rest
		return
	}
	if delete(x.rest, k); len(x.rest) == 0 {
		x.rest = nil
	}
}
