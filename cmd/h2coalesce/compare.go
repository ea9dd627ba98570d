package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/h2coalesce/h2coalesce/internal/lab"
	"github.com/h2coalesce/h2coalesce/transport"
)

// What is compared: hosts behind one wildcard certificate, all fetched at once
// by a client that knows none of them.
const (
	compareHosts    = 20
	comparePerHost  = 5
	compareRuns     = 5
	handshakeDelay  = 10 * time.Millisecond // stands in for the network's round trips
	compareCertName = "*.example.com"
)

// comparison is net/http and this module doing the same work.
type comparison struct {
	Hosts            int     `json:"hosts"`
	RequestsPerHost  int     `json:"requests_per_host"`
	Runs             int     `json:"runs"`
	HandshakeDelayMS float64 `json:"handshake_delay_ms"`
	NetHTTP          cost    `json:"net_http"`
	H2Coalesce       cost    `json:"h2coalesce"`
	Ratio            ratios  `json:"ratio"` // net/http's over ours
}

// cost is what a run takes; of several runs, the largest counts and the median
// times.
type cost struct {
	Connections int      `json:"connections"`
	Handshakes  int      `json:"handshakes"`
	Lookups     int      `json:"dns_lookups"`
	Requests    int      `json:"requests"`
	WallMS      float64  `json:"wall_ms"`
	CPUMS       *float64 `json:"cpu_ms"` // nil where it is not measured
}

type ratios struct {
	Connections float64  `json:"connections"`
	Handshakes  float64  `json:"handshakes"`
	Lookups     float64  `json:"dns_lookups"`
	Requests    float64  `json:"requests"`
	Wall        float64  `json:"wall"`
	CPU         *float64 `json:"cpu"`
}

// compare measures both sides, in turn, so that what else the machine does
// meets both.
func compare(ctx context.Context) (*comparison, error) {
	var theirs, ours []cost
	for range compareRuns {
		for _, side := range []struct {
			costs  *[]cost
			client func(*lab.Lab) (http.RoundTripper, func())
		}{{&theirs, netHTTP}, {&ours, h2coalesce}} {
			c, err := measure(ctx, side.client)
			if err != nil {
				return nil, err
			}
			*side.costs = append(*side.costs, c)
		}
	}
	c := &comparison{
		Hosts:            compareHosts,
		RequestsPerHost:  comparePerHost,
		Runs:             compareRuns,
		HandshakeDelayMS: millis(handshakeDelay),
		NetHTTP:          summarize(theirs),
		H2Coalesce:       summarize(ours),
	}
	c.Ratio = ratio(&c.NetHTTP, &c.H2Coalesce)
	return c, nil
}

// netHTTP is the standard library's client. It looks a host up when it dials,
// with the lab's resolver, which counts.
func netHTTP(l *lab.Lab) (http.RoundTripper, func()) {
	t := l.Transport()
	return t, t.CloseIdleConnections
}

// h2coalesce is this module's client with its default policy.
func h2coalesce(l *lab.Lab) (http.RoundTripper, func()) {
	t := &transport.Transport{
		Base:     &http.Transport{TLSClientConfig: l.TLSConfig()},
		Resolver: l.Resolver(),
	}
	return t, func() { t.Close() }
}

// measure does the work once, cold: new client, new server, new certificate.
func measure(ctx context.Context, newClient func(*lab.Lab) (http.RoundTripper, func())) (c cost, err error) {
	l, err := lab.New()
	if err != nil {
		return c, err
	}
	defer l.Close()
	err = l.Serve("127.0.0.1", lab.Server{Names: []string{compareCertName}, HandshakeDelay: handshakeDelay})
	if err != nil {
		return c, err
	}
	hosts := make([]string, compareHosts)
	for i := range hosts {
		hosts[i] = fmt.Sprintf("host%d.example.com", i+1)
		l.Host(hosts[i], "127.0.0.1")
	}
	rt, closeClient := newClient(l)
	defer closeClient()

	// The other side's garbage is not to be collected at this one's expense.
	runtime.GC()
	cpu, measured := cpuTime()
	start := time.Now()
	err = fetchAll(ctx, &http.Client{Transport: rt}, l, hosts)
	c.WallMS = millis(time.Since(start))
	if after, _ := cpuTime(); measured {
		ms := millis(after - cpu)
		c.CPUMS = &ms
	}
	c.Connections = l.Record().Accepted()
	c.Handshakes = l.Record().Handshakes()
	c.Lookups = l.Resolver().Lookups()
	for _, conn := range l.Record().Conns() {
		c.Requests += conn.Requests
	}
	return c, err
}

// fetchAll sends each host its requests one after the other, and all hosts
// theirs at once.
func fetchAll(ctx context.Context, client *http.Client, l *lab.Lab, hosts []string) error {
	errs := make([]error, len(hosts))
	var wg sync.WaitGroup
	for i, host := range hosts {
		wg.Go(func() {
			for range comparePerHost {
				status, err := discard(ctx, client, l.URL(host, "/"))
				if err == nil && status != http.StatusOK {
					err = fmt.Errorf("%s answers %d", host, status)
				}
				if errs[i] = err; err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// discard fetches url and returns the status of the answer.
func discard(ctx context.Context, client *http.Client, url string) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, err
}

func summarize(runs []cost) cost {
	var sum cost
	var wall, cpu []float64
	for _, c := range runs {
		sum.Connections = max(sum.Connections, c.Connections)
		sum.Handshakes = max(sum.Handshakes, c.Handshakes)
		sum.Lookups = max(sum.Lookups, c.Lookups)
		sum.Requests = max(sum.Requests, c.Requests)
		wall = append(wall, c.WallMS)
		if c.CPUMS != nil {
			cpu = append(cpu, *c.CPUMS)
		}
	}
	sum.WallMS = median(wall)
	if len(cpu) > 0 {
		m := median(cpu)
		sum.CPUMS = &m
	}
	return sum
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

func ratio(a, b *cost) ratios {
	r := ratios{
		Connections: over(a.Connections, b.Connections),
		Handshakes:  over(a.Handshakes, b.Handshakes),
		Lookups:     over(a.Lookups, b.Lookups),
		Requests:    over(a.Requests, b.Requests),
		Wall:        over(a.WallMS, b.WallMS),
	}
	if a.CPUMS != nil && b.CPUMS != nil {
		cpu := over(*a.CPUMS, *b.CPUMS)
		r.CPU = &cpu
	}
	return r
}

// over is a/b in hundredths; 0 if b is, since JSON has no infinity.
func over[N int | float64](a, b N) float64 {
	if b == 0 {
		return 0
	}
	return float64(int(float64(a)/float64(b)*100+0.5)) / 100
}
