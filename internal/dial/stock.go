package dial

import (
	"net"
	"reflect"
	"time"
	"unsafe"
)

// stockTimeout is the Timeout of the net.Dialer in http.DefaultTransport.
const stockTimeout = 30 * time.Second

// isStock tells whether f is the DialContext of http.DefaultTransport, or of a
// clone of it.
//
// http.DefaultTransport has its DialContext set. Taken at its word, every
// transport that began as http.DefaultTransport.Clone() would be one with a
// dial function of the caller's own, whose hosts are not looked up and so never
// share a connection. But that function is a net.Dialer, known to do nothing
// but ask net.DefaultResolver and dial the answer: to do these two steps one
// after the other asks nobody who would not have been asked.
//
// What f calls is compared, not f with http.DefaultTransport's: programs
// replace http.DefaultTransport by a RoundTripper around the former one, and
// there would be nothing left to compare with. A net.Dialer with any other
// setting counts as the caller's own.
func isStock(f dialFunc) bool {
	d := boundDialer(f)
	// DefaultTransport's settings; TestP8_StockDialer fails should they change.
	// Above all, the Resolver is nil.
	return d != nil && reflect.DeepEqual(d, &net.Dialer{
		Timeout:   stockTimeout,
		KeepAlive: 30 * time.Second,
	})
}

// boundDialer returns d if f is the method value d.DialContext, and else nil.
//
// The language has no way to ask for it. A func value points to its code
// pointer, which for a method value is followed by the receiver. The code
// pointer says that f is such a method value, and one made here proves the
// place of the receiver before f's is read; if a compiler does either
// differently, no function is recognised.
func boundDialer(f dialFunc) *net.Dialer {
	probe := new(net.Dialer)
	own := dialFunc(probe.DialContext)
	if reflect.ValueOf(f).Pointer() != reflect.ValueOf(own).Pointer() {
		return nil
	}
	if receiver(own) != probe {
		return nil
	}
	return receiver(f)
}

func receiver(f dialFunc) *net.Dialer {
	closure := *(**struct {
		code uintptr
		recv *net.Dialer
	})(unsafe.Pointer(&f))
	return closure.recv
}
