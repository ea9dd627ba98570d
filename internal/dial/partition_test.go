package dial_test

import (
	"crypto/tls"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/h2coalesce/h2coalesce/internal/dial"
)

func TestC1_SessionsStayInTheirPartition(t *testing.T) {
	ca := newAuthority(t)
	ca.eachVersion(t, func(t *testing.T, server *tls.Config) {
		addr := listen(t, server)
		cache := newStore(t)
		d := dial.New(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool, ClientSessionCache: cache}}, nil)

		partitions := []string{"p", "q", "", "p q", "p ", " p", "p a.example", "p\x00", "a.example", strings.Repeat("p", 1<<10)}
		for _, resumed := range []bool{false, true, true} {
			for _, partition := range partitions {
				to := target("a.example", addr)
				to.Partition = partition
				r := mustDial(t, d, to)
				if readGreeting(t, r.Conn); r.TLS.DidResume != resumed {
					t.Errorf("partition %.20q: DidResume = %t, want %t", partition, r.TLS.DidResume, resumed)
				}
				if r.ClientCert {
					t.Errorf("partition %.20q, resumed = %t: ClientCert is true", partition, resumed)
				}
			}
		}

		keys := cache.Keys()
		if len(keys) != len(partitions) || !slices.Contains(keys, "a.example") {
			t.Errorf("%d keys for %d partitions: %q", len(keys), len(partitions), keys)
		}
		for _, key := range keys {
			// A host whose name is another partition's key would get that
			// partition's session. No name has a space in it.
			if key != "a.example" && !strings.Contains(key, " ") {
				t.Errorf("key %q could be a host's name", key)
			}
			if strings.Contains(key, "p q") {
				t.Errorf("key %q tells the partition's name", key)
			}
		}
	})
}

// TestC1_NoPartitionUsesPlainKeys: other code with the same cache resumes this
// package's sessions, and the other way round.
func TestC1_NoPartitionUsesPlainKeys(t *testing.T) {
	ca := newAuthority(t)
	ca.eachVersion(t, func(t *testing.T, server *tls.Config) {
		addr := listen(t, server)
		cfg := &tls.Config{RootCAs: ca.Pool, ClientSessionCache: tls.NewLRUClientSessionCache(0)}
		ours := func(host, partition string) bool {
			to := target(host, addr)
			to.Partition = partition
			r := mustDial(t, dial.New(&http.Transport{TLSClientConfig: cfg}, nil), to)
			readGreeting(t, r.Conn)
			return r.TLS.DidResume
		}
		others := func(host string) bool { return dialPlain(t, cfg, host, addr).DidResume }

		got := []bool{
			ours("a.example", ""), others("a.example"), ours("a.example", ""),
			others("b.example"), ours("b.example", "p"), ours("b.example", ""),
		}
		want := []bool{false, true, true, false, false, true}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("DidResume (-want +got):\n%s", diff)
		}
	})
}

// TestC1_DeletedInItsPartition: a session whose resumption fails is deleted
// where it was found, and nowhere else.
func TestC1_DeletedInItsPartition(t *testing.T) {
	ca := newAuthority(t)
	ca.eachVersion(t, func(t *testing.T, server *tls.Config) {
		addr := listen(t, server)
		cache := newStore(t)
		refuse := false
		d := dial.New(&http.Transport{TLSClientConfig: &tls.Config{
			RootCAs:            ca.Pool,
			ClientSessionCache: cache,
			VerifyConnection: func(tls.ConnectionState) error {
				if refuse {
					return errRefused
				}
				return nil
			},
		}}, nil)
		to := target("a.example", addr)
		for _, to.Partition = range []string{"", "p"} {
			readGreeting(t, mustDial(t, d, to).Conn)
		}
		if n := len(cache.Keys()); n != 2 {
			t.Fatalf("%d sessions in the cache, want 2", n)
		}
		refuse = true
		mustRefuse(t, d, to)
		if diff := cmp.Diff([]string{"a.example"}, cache.Keys()); diff != "" {
			t.Errorf("keys (-want +got):\n%s", diff)
		}
	})
}

func TestC1_PartitionSessions(t *testing.T) {
	cache := newStore(t)
	if got := dial.PartitionSessions(cache, ""); got != tls.ClientSessionCache(cache) {
		t.Errorf(`PartitionSessions(cache, "") = %v, want cache itself`, got)
	}
	for _, partition := range []string{"", "p"} {
		if got := dial.PartitionSessions(nil, partition); got != nil {
			t.Errorf("PartitionSessions(nil, %q) = %v, want nil", partition, got)
		}
	}
}
