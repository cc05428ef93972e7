package site

import (
	"sync"
	"time"
)

// gate lets each key through so many times a second, with a burst. Keys are
// identities that proved themselves, so their number is bounded by the ledger;
// those that are full again are forgotten. Safe for concurrent use.
type gate struct {
	rate, burst float64
	mu          sync.Mutex
	buckets     map[string]bucket
}

type bucket struct {
	level float64
	at    time.Time
}

func newGate(perSecond, burst float64) *gate {
	return &gate{rate: perSecond, burst: burst, buckets: map[string]bucket{}}
}

// pass takes one turn of key, or says how long to wait for the next, at least 1 s.
func (g *gate) pass(key string, now time.Time) (wait time.Duration, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	b, there := g.buckets[key]
	if !there {
		b = bucket{level: g.burst, at: now}
		g.forget(now)
	}
	b.level = g.filled(b, now)
	b.at = now
	ok = b.level >= 1
	if ok {
		b.level--
	} else {
		wait = max(time.Second, time.Duration((1-b.level)/g.rate*float64(time.Second)))
	}
	g.buckets[key] = b
	return wait, ok
}

func (g *gate) filled(b bucket, now time.Time) float64 {
	gone := max(0, now.Sub(b.at).Seconds()) // a clock that went back fills nothing
	return min(g.burst, b.level+gone*g.rate)
}

// forget drops full buckets when there are many.
func (g *gate) forget(now time.Time) {
	const many = 1024
	if len(g.buckets) < many {
		return
	}
	for key, b := range g.buckets {
		if g.filled(b, now) >= g.burst {
			delete(g.buckets, key)
		}
	}
}
