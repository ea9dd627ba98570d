package coalesce_test

import (
	"testing"
	"time"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

func TestParseMatch(t *testing.T) {
	for m, word := range map[coalesce.Match]string{
		coalesce.MatchAddress: "address", coalesce.MatchOrigin: "origin", coalesce.MatchCertificate: "certificate", coalesce.MatchNever: "never",
	} {
		if got, err := coalesce.ParseMatch(word); err != nil || got != m || m.String() != word {
			t.Errorf("ParseMatch(%q) = %v, %v; String is %q", word, got, err, m)
		}
	}
	for _, word := range []string{"", "Address", "Match(4)"} {
		if m, err := coalesce.ParseMatch(word); err == nil || m != coalesce.MatchAddress {
			t.Errorf("ParseMatch(%q) = %v, %v", word, m, err)
		}
	}
	if got := coalesce.Match(-1).String(); got != "Match(-1)" {
		t.Errorf("String = %q", got)
	}
}

func TestPolicyDefaults(t *testing.T) {
	for _, tt := range []struct{ set, join, ttl time.Duration }{
		{0, 300 * time.Millisecond, 5 * time.Minute},
		{time.Second, time.Second, time.Second},
		{-1, -1, -1},
	} {
		p := coalesce.Policy{JoinWait: tt.set, AddressTTL: tt.set}
		if p.JoinWaitOrDefault() != tt.join || p.AddressTTLOrDefault() != tt.ttl {
			t.Errorf("%v: JoinWait %v, AddressTTL %v; want %v, %v", tt.set, p.JoinWaitOrDefault(), p.AddressTTLOrDefault(), tt.join, tt.ttl)
		}
	}
}
