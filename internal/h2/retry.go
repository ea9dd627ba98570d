package h2

import (
	"errors"

	"golang.org/x/net/http2"
)

// Retry says whether a request may be sent again after an error.
type Retry int

const (
	// RetryNever: the server may have processed the request, or would treat
	// another attempt no better.
	RetryNever Retry = iota

	// RetryUnsent: the server did not process the request, whatever its
	// method (RFC 9113 §8.7). Nothing in the error says that another
	// connection fares better; the caller bounds the attempts. The body may
	// have been read in part.
	RetryUnsent

	// RetryIdempotent: the server may have processed the request, but may be
	// asked again on another connection for what can be asked twice
	// (RFC 9110 §9.2.2). Either it reset the stream with PROTOCOL_ERROR, which
	// some do to streams beyond their limit (golang/go#47635); net/http sends
	// any request again then. Or it fell silent and the connection was given
	// up (P7); net/http sends none again.
	RetryIdempotent
)

// String returns a word for r.
func (r Retry) String() string {
	switch r {
	case RetryUnsent:
		return "unsent"
	case RetryIdempotent:
		return "idempotent"
	}
	return "never"
}

// RetryOf classifies an error from RoundTrip as net/http does, but for two
// cases. One is a connection that ended before its first request: there
// net/http reports the error, lest it dial a broken server for ever; here the
// request is RetryUnsent, which it is. The other is RetryIdempotent's.
//
// A stream above a GOAWAY's last stream id is RetryUnsent, except the first
// stream of a connection whose GOAWAY carries an error: such a server turns
// the client away, and net/http does not insist either.
func RetryOf(err error) Retry {
	// The engine may be x/net's or the one within net/http, whose StreamError
	// is another type that answers to As.
	var se http2.StreamError
	if errors.As(err, &se) {
		switch {
		case se.Code == http2.ErrCodeRefusedStream:
			return RetryUnsent
		case se.Code == http2.ErrCodeProtocol && se.Cause != nil && se.Cause.Error() == textFromPeer:
			return RetryIdempotent
		}
		return RetryNever
	}
	var lost *lostError
	if errors.As(err, &lost) {
		return RetryIdempotent
	}
	for ; err != nil; err = errors.Unwrap(err) {
		switch {
		case neverSent(err):
			return RetryUnsent
		case err.Error() == textLost:
			return RetryIdempotent
		}
	}
	return RetryNever
}

// The engine's errors are not exported: the text is all there is to match.
const (
	// No stream was opened: a GOAWAY arrived, the connection ended, or the
	// server lowered its limit below what was reserved.
	textUnusable = "http2: client conn not usable"
	// The same, on a connection that never carried a request.
	textNotEstablished = "http2: client conn could not be established"
	// The cause of a stream error that the server has sent.
	textFromPeer = "received from peer"
	// The stream is above the GOAWAY's last stream id (RFC 9113 §6.8).
	textGoAway = "http2: Transport received Server's graceful shutdown GOAWAY"
	// The server has not answered a PING of HTTP2Config.SendPingTimeout.
	textLost = "http2: client connection lost"
)

func neverSent(err error) bool {
	switch err.Error() {
	case textUnusable, textNotEstablished, textGoAway:
		return true
	}
	return false
}
