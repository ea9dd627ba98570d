package pool_test

import (
	"context"
	"testing"
)

func get(b *testing.B, r *rig, host string) {
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		l, err := r.Get(ctx, request(host))
		if err != nil {
			b.Fatal(err)
		}
		l.Release()
	}
}

func BenchmarkGet(b *testing.B) {
	for _, bench := range []struct{ name, host string }{{"own", "a.test"}, {"shared", "b.test"}} {
		b.Run(bench.name, func(b *testing.B) {
			get(b, warm(b), bench.host)
		})
		b.Run(bench.name+"/origin-set", func(b *testing.B) {
			r := warm(b)
			r.conn(0).obs.Origin([]string{"https://b.test"}, 0)
			get(b, r, bench.host)
		})
		b.Run(bench.name+"/parallel", func(b *testing.B) {
			r := warm(b)
			ctx := context.Background()
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					l, err := r.Get(ctx, request(bench.host))
					if err != nil {
						b.Error(err)
						return
					}
					l.Release()
				}
			})
		})
	}
}

// BenchmarkLookup finds a connection for a host that has none yet, among 1,000
// connections with as many certificates of 100 names.
func BenchmarkLookup(b *testing.B) {
	r := many(b, 1000, 100)
	b.Run("found", func(b *testing.B) {
		f := r.NewFinder("h99.c500.test", addr1)
		b.ReportAllocs()
		for b.Loop() {
			if !f.Find() {
				b.Fatal("not found")
			}
		}
	})
	b.Run("none", func(b *testing.B) {
		f := r.NewFinder("h100.c500.test", addr1)
		b.ReportAllocs()
		for b.Loop() {
			if f.Find() {
				b.Fatal("found")
			}
		}
	})
	// All of them qualify.
	b.Run("same-certificate", func(b *testing.B) {
		f := sameCertificate(b, 1000).NewFinder("h1500.test", addr1)
		b.ReportAllocs()
		for b.Loop() {
			if !f.Find() {
				b.Fatal("not found")
			}
		}
	})
}

// sameCertificate returns a pool with so many connections that show the same
// certificate at the same address.
func sameCertificate(t testing.TB, conns int) *rig {
	r := newRig(t)
	t.Cleanup(func() { r.Close() })
	r.handshake = 0
	hosts := names("h%d.test", 2*conns)
	r.shared(hosts...)
	for _, h := range hosts[:conns] {
		l, err := r.Get(context.Background(), own(h))
		if err != nil {
			t.Fatal(err)
		}
		l.Release()
	}
	return r
}
