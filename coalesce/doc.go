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
// [Policy.Judge] asks in this order. All must hold for a connection to be
// shared; the first that fails gives the reason.
//
//	rule      what must hold                                     otherwise           source
//	C9, C12   sharing is on, for this request too                disabled            RFC 9110 §7.2
//	C1        same port                                          port                RFC 6454 §4
//	C1        same partition                                     partition
//	C2        no GOAWAY, not too old, not closed                 draining            RFC 9113 §6.8
//	C2        room for one more host                             full
//	C1, C3    h2, chain verified for the host dialed             unverified          RFC 9113 §3.2, RFC 9110 §4.3.4
//	C4        the certificate is valid now                       expired             RFC 5280 §4.1.2.5
//	C5        the certificate names the host                     not-covered         RFC 9525 §6, RFC 9113 §9.1.1
//	C6        VerifyConnection accepts the host                  unverified          RFC 9113 §9.1.1
//	C7        no client certificate was sent                     client-certificate
//	C8        an ORIGIN frame, if any came, lists the host       not-in-origin-set   RFC 8336 §2.4
//	C9        the evidence that Match asks for                   address-mismatch    RFC 9110 §4.3.3, RFC 8336 §2.4
//	C10       no 421 there                                       misdirected         RFC 9110 §15.5.20
//	C11       Policy.Allow agrees                                vetoed
//
// C12 is the rule that a request whose Host header names another host than its
// URL is not shared. It comes first, with a Match that shares nothing: what is
// not to be shared is not looked up, so C9 would be judged without evidence.
//
// C6 and C11 run code of the user's, which must not be done while a lock is
// held, and is not done without need: [Policy.Consult] asks it about a sharing
// that all other rules admit. What it says is then one more of Judge's
// arguments, [Request].Said.
//
// A host's own connection needs none of this but C2. Which server answers on
// it was decided when it was dialed, as without sharing.
//
// # What sharing changes
//
// A client that does not share reaches a host in three steps: DNS gives it an
// address, the network a machine at that address, and TLS the proof that this
// machine holds the key of a certificate which names the host. A shared
// request skips the handshake, and with it whatever client and server would
// have decided by the host's name there. The rules put something in the place
// of each step that is skipped:
//
//   - the proof: C3, C4 and C5 hold the proof that was given against the new
//     host. The chain that crypto/tls has verified vouches for every name in
//     the leaf, name constraints included, not only for the one dialed;
//   - the client's other checks: C6 makes them again;
//   - DNS and the network: C9;
//   - the server's choice of a virtual host: C8 beforehand, C10 afterwards.
//
// # Who could attack what
//
// The holder of a key without right. The certificate names the host; it was
// stolen, mis-issued, outlived the passing of the name to somebody else, or is
// broader than its holder should have. Under every [Match] nothing is shared
// without such a key (C5). What its holder needs besides is what the Matches
// differ in:
//
//   - [MatchAddress]: control of the host's DNS, or of the path to its address.
//     Without sharing they would need the same. This is why it is the default.
//   - [MatchOrigin]: that the client connects to their server for some other
//     host that the certificate names, a host of their own for instance. DNS
//     and the path are no obstacle any more (RFC 8336 §4). The RFC wants those
//     who do without DNS to have other grounds for trust, such as proof of
//     revocation status or of certificate transparency. Go's TLS checks
//     neither; TLSClientConfig.VerifyConnection can, and is asked for every
//     host (C6).
//   - [MatchCertificate]: the same, without even an ORIGIN frame.
//   - [MatchNever]: as MatchAddress, for sharing is off.
//
// A certificate that expires ends the danger under every Match (C4), also on
// connections that are open and for hosts that are placed on them. Revocation
// does not, unless VerifyConnection knows of it, and then for new hosts only.
//
// A hostile server with a key of its own right gets the requests of no host
// but its own: what its ORIGIN frames list counts for nothing where its
// certificate does not cover it (C5 comes before C8 and C9). It cannot make
// the client hold more than 128 origins (O4), cannot break off other servers'
// connections by claiming their origins (O6 counts what the certificate
// covers), and gains by answering 421 one further connection to itself (M5).
//
// Who controls DNS, but no key, can have a host's requests sent to any server
// whose certificate names the host and which the client is connected to or can
// be: one of the same owner, as a rule. Without sharing that server would see
// a handshake with the host's name first and could refuse it. See the next
// section.
//
// # Confusion among servers of one owner
//
// Virtual hosts. A wildcard certificate is often on more servers than one, and
// not each of them serves each name. A request that arrives at the wrong one
// without a handshake of its own may be answered by that server's default
// host: content of one origin under the name of another. Servers are obliged
// to check (RFC 9110 §7.4) and have 421 to say so. Not all do, which is why
// the address has to match by default (C9): then the server is one that the
// host's own DNS names. An ORIGIN frame that leaves the host out keeps it
// away under every Match (C8). MatchCertificate is for those who know that
// each of their servers answers, with content or with 421, for each name.
//
// Other protocols (ALPACA). A wildcard certificate may be on mail and file
// servers too; the attack has a browser speak HTTP to one of them. Here a
// connection takes requests of other hosts only if the server has selected h2
// by ALPN (C1), which a server of another protocol does not, and a request
// does not leave its port.
//
// Mutual TLS. A client certificate authenticates the connection, not the
// request. On a connection where one was sent to a.example, a request for
// b.example would act with an identity that b.example never asked for, and get
// around the rules by which b.example admits clients. C7 refuses, unless
// [Policy].ShareClientCert says that all hosts concerned know the identity and
// check it alike. Where it cannot be seen whether a certificate was sent, it
// counts as sent. The converse, a virtual host that wants a certificate for
// which nobody asked on the shared connection, is the server's to refuse: by
// 421.
//
// Pinning. A pin in VerifyConnection is a condition on one host's connections.
// Shared without C6, the requests of a pinned host would travel on a
// connection that was accepted for a host with other pins or none. C6 asks
// with the new host as ServerName; a refusal leaves the host to connections of
// its own, on which the pin is checked as ever. VerifyPeerCertificate is not
// told a host and has said all that it can by the time of the handshake.
//
// Verification that was turned off. InsecureSkipVerify, a ServerName that is
// fixed for all hosts, and dial functions that return a connection without
// showing its state leave no proof to hold against another host (C3): own
// connections only, which behave as they do without sharing.
//
// Linking. Requests on one connection can be told by the server to come from
// one client. Partitions keep apart what must not be linked: connections, what
// a 421 has taught, and TLS sessions (C1).
package coalesce
