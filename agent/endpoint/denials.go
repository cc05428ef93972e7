package endpoint

import (
	"sync"
	"time"

	"postern/platform"
)

const (
	// denialEvery is how often a caller's refusal for one reason is reported: a
	// flood of them must not fill log, audit ring and flash (T29).
	denialEvery = time.Minute
	maxDenials  = 256 // callers and reasons that are remembered
)

// denials fold equal refusals.
type denials struct {
	mu   sync.Mutex
	seen map[denialKey]*folded
}

type denialKey struct {
	peer   platform.Peer
	reason string
}

type folded struct {
	since time.Time // of the last report; monotonic
	count int       // not reported yet
}

func newDenials() *denials { return &denials{seen: make(map[denialKey]*folded)} }

// report tells log and audit of d, unless the same was told within a minute;
// then it is counted and told with the next one.
func (n *denials) report(s *Server, d Denial) {
	d.Count = n.count(denialKey{d.Peer, d.Reason}, time.Now())
	if d.Count == 0 {
		return
	}
	uid := d.Peer.String()
	s.log.Warn("request refused", "event", d.Event, "reason", d.Reason, "flavour", string(d.Flavour), "listener", d.Listener,
		"uid", uid, "correlation", d.Correlation, "count", d.Count)
	if s.o.Audit != nil {
		s.o.Audit(d)
	}
}

// count is how many refusals to report now; 0 for none.
func (n *denials) count(k denialKey, now time.Time) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := n.seen[k]
	if f == nil {
		if len(n.seen) >= maxDenials {
			n.dropOldest()
		}
		n.seen[k] = &folded{since: now}
		return 1
	}
	f.count++
	if now.Sub(f.since) < denialEvery {
		return 0
	}
	count := f.count
	f.since, f.count = now, 0
	return count
}

// dropOldest forgets the refusal that was reported longest ago; mu is held.
func (n *denials) dropOldest() {
	var oldest denialKey
	var since time.Time
	for k, f := range n.seen {
		if since.IsZero() || f.since.Before(since) {
			oldest, since = k, f.since
		}
	}
	delete(n.seen, oldest)
}
