package coalesce_test

import (
	"fmt"
	"testing"

	"github.com/h2coalesce/h2coalesce/coalesce"
)

func BenchmarkJudge(b *testing.B) {
	p := shareable()
	b.ReportAllocs()
	for b.Loop() {
		if p.judge() != coalesce.ReasonShared {
			b.Fatal("not shared")
		}
	}
}

func BenchmarkCovers(b *testing.B) {
	sans := []string{"*.example.org", "ip:192.0.2.9"}
	for i := range 1000 {
		sans = append(sans, fmt.Sprintf("host%d.example.com", i))
	}
	c := cover(sans...)
	for _, host := range []string{"host999.example.com", "www.example.org", "192.0.2.9", "www.example.net"} {
		b.Run(host, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.Covers(host)
			}
		})
	}
}

func BenchmarkCanonicalHost(b *testing.B) {
	for _, host := range []string{"www.example.com", "WWW.example.com", "2001:db8::1"} {
		b.Run(host, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				coalesce.CanonicalHost(host)
			}
		})
	}
}
