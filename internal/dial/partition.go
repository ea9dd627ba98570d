package dial

import (
	"crypto/sha256"
	"crypto/tls"
	"fmt"
)

// PartitionSessions returns cache as it is to be used in one partition: what is
// put in one is not got in another. For the partition "" that is cache itself,
// so that it can be shared with other code, and for a nil cache it is nil.
//
// A ticket is a name that the server has given to a client, and the client
// presents it in the clear (RFC 8446 §4.2.11, identity). Whoever resumes is
// known to the server as whoever began, and if the ticket is used twice, or was
// issued in the clear as by TLS 1.2, to everybody on the path as well (RFC 8446
// §C.4). So to resume one partition's session in another would link their
// requests as surely as to share a connection.
func PartitionSessions(cache tls.ClientSessionCache, partition string) tls.ClientSessionCache {
	if cache == nil || partition == "" {
		return cache
	}
	// A cache that writes to a disk is not given the partition's name, which
	// may be a user's. The length is fixed and no server name has a space in
	// it, so a key is no other partition's, nor one of none.
	return partitioned{cache, fmt.Sprintf("h2coalesce partition %x ", sha256.Sum256([]byte(partition)))}
}

// partitioned is a ClientSessionCache whose keys begin with prefix.
type partitioned struct {
	cache  tls.ClientSessionCache
	prefix string
}

func (p partitioned) Get(key string) (*tls.ClientSessionState, bool) {
	return p.cache.Get(p.prefix + key)
}

func (p partitioned) Put(key string, cs *tls.ClientSessionState) {
	p.cache.Put(p.prefix+key, cs)
}
