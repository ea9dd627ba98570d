package dial

import (
	"crypto/tls"
	"slices"
	"sync/atomic"
)

// noClientCert is the entry in the Extra of a session whose server has seen no
// client certificate: neither when it was made nor in a session that it
// continues. Extra stays with the client, so no server can forge it.
const noClientCert = "h2coalesce/1 no client certificate"

// sessions is the ClientSessionCache of one connection, around the user's.
//
// A resumed session has the client's identity of the one it continues
// (RFC 8446 §2.2, for TLS 1.2 RFC 5077 §4), and shows nothing of it: the server
// does not ask for a certificate again (RFC 8446 §4.3.2), and the certificate
// may be another configuration's that uses the same cache. If such a
// connection were shared, the server would act on another host's request with
// an identity that was shown to this host only, as a confused deputy. So each
// session says in its Extra that it has no identity, and one that does not say
// so, because other code put it there, is taken to have one.
type sessions struct {
	cache tls.ClientSessionCache

	// identified is true if a client certificate was sent on this connection,
	// or belongs to the session it continues, or may. It only ever becomes true.
	identified *atomic.Bool

	// marked is whether the session that the handshake offers says that it has
	// no identity. The handshake alone uses it, in one goroutine.
	marked bool
}

// watchSessions arranges for identified to become true if the connection
// continues a session that may have a client's identity, and for the sessions
// of a connection where identified remains false to say so.
func watchSessions(cfg *tls.Config, identified *atomic.Bool) {
	if cfg.ClientSessionCache == nil {
		return
	}
	s := &sessions{cache: cfg.ClientSessionCache, identified: identified}
	cfg.ClientSessionCache = s

	// This is called in every handshake, resumed or not, as soon as it is known
	// which, and before a session is put: TLS 1.2 puts one before the handshake
	// ends. If the server has rejected the session that was offered, what that
	// one had or might have had is of no consequence.
	verify := cfg.VerifyConnection
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		if state.DidResume && !s.marked {
			identified.Store(true)
		}
		if verify == nil {
			return nil
		}
		return verify(state)
	}
}

// Get is called at most once, for the session to offer.
func (s *sessions) Get(key string) (*tls.ClientSessionState, bool) {
	cs, ok := s.cache.Get(key)
	if !ok {
		return nil, false
	}
	_, state, err := cs.ResumptionState()
	if err != nil || state == nil {
		return nil, false // crypto/tls dereferences what is missing here
	}
	s.marked = slices.ContainsFunc(state.Extra, isNoClientCert)
	return cs, true
}

// Put is called for each ticket: by TLS 1.2 in the handshake, by TLS 1.3 in any
// Read after it. A ticket stands for the connection as it is by then, so an
// identity that came by renegotiation counts. A nil cs deletes.
func (s *sessions) Put(key string, cs *tls.ClientSessionState) {
	if !s.identified.Load() {
		cs = withoutIdentity(cs)
	}
	s.cache.Put(key, cs)
}

// withoutIdentity returns cs with noClientCert added, or cs as it is if that
// cannot be done. Put is the only holder of cs, so its state may be changed.
func withoutIdentity(cs *tls.ClientSessionState) *tls.ClientSessionState {
	ticket, state, err := cs.ResumptionState()
	if err != nil || state == nil {
		return cs
	}
	former := state.Extra
	// Extra is shared with other layers, which may hold on to the array.
	state.Extra = append(slices.Clip(former), []byte(noClientCert))
	marked, err := tls.NewResumptionState(ticket, state)
	if err != nil {
		state.Extra = former
		return cs
	}
	return marked
}

func isNoClientCert(extra []byte) bool { return string(extra) == noClientCert }
