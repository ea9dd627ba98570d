// Package coalesce holds the rules by which one HTTP/2 connection carries
// requests for hosts other than the one that it was dialed for.
//
// The package is pure: it opens nothing, looks nothing up, starts no goroutine
// and logs nothing. It is given facts (a certificate, addresses, the entries
// of ORIGIN frames, the time) and returns a [Reason]. The one exception is
// [Policy.Consult], which calls functions that the user of the module set.
//
// # Words
//
// An own connection of a host was dialed for it; a connection is shared when
// it carries the requests of another host. The [Coverage] of a certificate is
// what its subjectAltName names. An [OriginSet] is what the server's ORIGIN
// frames list (RFC 8336). A host is misdirected when the server answers
// 421 (RFC 9110 §15.5.20); [Memory] remembers where.
//
// Hosts are compared as strings, so all of them are in the form that
// [CanonicalHost] returns.
//
// # Rules
//
// [Policy.Judge] and [Policy.Consult] ask in this order. All must hold for a
// connection to be shared; the first that fails gives the reason.
//
//	rule      what must hold                                     otherwise
//	C9, C12   sharing is on, for this request too                disabled
//	C1        same port                                          port
//	C1        same partition                                     partition
//	C2        no GOAWAY, not too old, not closed                 draining
//	C2        room for one more host                             full
//	C1, C3    h2, chain verified for the host dialed             unverified
//	C4        the certificate is valid now                       expired
//	C5        the certificate names the host                     not-covered
//	C7        no client certificate was sent                     client-certificate
//	C8        an ORIGIN frame, if any came, lists the host       not-in-origin-set
//	C9        the evidence that Match asks for                   address-mismatch
//	C10       no 421 there                                       misdirected
//	C6        VerifyConnection accepts the host                  unverified
//	C11       Policy.Allow agrees                                vetoed
//
// C6 comes late because, like C11, it runs code of the user's, which must not
// be done while a lock is held. C12 is the rule that a request whose Host header
// names another host than its URL is not shared.
//
// # Security
//
// Under every [Match] a server has to hold the key of a certificate, verified
// by crypto/tls, that names the host. They differ in what somebody who has
// such a key without right (stolen, mis-issued, or kept by a former operator)
// needs besides:
//
//   - [MatchAddress]: control of the host's DNS, or of the path to its address.
//     Without sharing they would need the same.
//   - [MatchOrigin]: a client that connects to the attacker's server for some
//     other host that the certificate names. DNS is no longer asked
//     (RFC 8336 §4).
//   - [MatchCertificate]: the same, without even an ORIGIN frame. A server
//     that does not serve the host may also answer for it by mistake.
//   - [MatchNever]: sharing is off.
package coalesce
