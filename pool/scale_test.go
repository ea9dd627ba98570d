package pool_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"runtime"
	"testing"
)

// fleet is certificates and the hosts that they name.
type fleet struct {
	certs []*x509.Certificate
	hosts [][]string
}

func newFleet(certs, hosts int) *fleet {
	f := new(fleet)
	for i := range certs {
		names := names(fmt.Sprintf("h%%d.c%d.test", i), hosts)
		f.certs = append(f.certs, leaf(names...))
		f.hosts = append(f.hosts, names)
	}
	return f
}

// connect returns a pool with so many connections for each certificate.
func (f *fleet) connect(t testing.TB, conns int) *rig {
	r := newRig(t)
	t.Cleanup(func() { r.Close() })
	r.handshake = 0
	for i, cert := range f.certs {
		r.host(cert, addr1, f.hosts[i][:conns]...)
		for _, h := range f.hosts[i][:conns] {
			l, err := r.Get(context.Background(), own(h))
			if err != nil {
				t.Fatal(err)
			}
			l.Release()
		}
	}
	return r
}

// heap returns the bytes in use.
func heap() float64 {
	runtime.GC()
	runtime.GC() // finalizers and pools take another turn
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// BenchmarkScale has 10,000 connections with 1,000 certificates of 1,000 names.
// B/name is what a name costs beyond its text, which belongs to the certificate.
func BenchmarkScale(b *testing.B) {
	const certs, hosts, few, conns = 1000, 1000, 10, 10
	cost := func(f *fleet) (*rig, float64) {
		before := heap()
		r := f.connect(b, conns)
		return r, heap() - before
	}
	_, least := cost(newFleet(certs, few))
	r, most := cost(newFleet(certs, hosts))
	perName := (most - least) / (certs * (hosts - few))

	for name, host := range map[string]string{"found": "h999.c500.test", "none": "h1000.c500.test"} {
		b.Run(name, func(b *testing.B) {
			f := r.NewFinder(host, addr1)
			b.ReportAllocs()
			for b.Loop() {
				if f.Find() != (name == "found") {
					b.Fatal("wrong")
				}
			}
			b.ReportMetric(perName, "B/name")
		})
	}
}
