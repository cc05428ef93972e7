package token

import (
	"time"

	"postern/agent/lifecycle"
)

const (
	// maxRefusals bounds what is remembered; the oldest goes.
	maxRefusals = 256
	// refusalLife is how long BadResource and Denied are remembered.
	refusalLife = time.Minute
	// Rejected and Clock heal by themselves and are remembered only as long as
	// it takes to keep many callers from hammering the authority.
	rejectedLife = 30 * time.Second
	clockLife    = 10 * time.Second
)

// refusals remember what the authority said no to, so that it is not asked
// again at once. Lives are monotonic. Not safe for concurrent use: guarded by
// Broker.mu.
type refusals struct{ entries map[key]refusal }

type refusal struct {
	err   *lifecycle.Error
	since time.Time
	until time.Time
	asked bool // until is the authority's own Retry-After
}

func newRefusals() *refusals { return &refusals{entries: make(map[key]refusal)} }

// find returns what was remembered of k, nil if nothing. A Retry-After counts
// down.
func (r *refusals) find(k key) error {
	entry, ok := r.entries[k]
	left := time.Until(entry.until)
	switch {
	case !ok:
		return nil
	case left <= 0:
		delete(r.entries, k)
		return nil
	case !entry.asked:
		return entry.err
	}
	again := *entry.err
	again.RetryAfter = left
	return &again
}

// remember keeps a refusal for as long as its class, or the authority, asks.
func (r *refusals) remember(k key, err *lifecycle.Error) {
	life := err.RetryAfter
	switch err.Class {
	case lifecycle.ClassBadResource, lifecycle.ClassDenied:
		life = max(life, refusalLife)
	case lifecycle.ClassRejected:
		life = max(life, rejectedLife)
	case lifecycle.ClassClock:
		life = max(life, clockLife)
	}
	if life <= 0 {
		return
	}
	if _, known := r.entries[k]; !known && len(r.entries) >= maxRefusals {
		r.dropOldest()
	}
	now := time.Now()
	r.entries[k] = refusal{err: err, since: now, until: now.Add(life), asked: err.RetryAfter > 0}
}

func (r *refusals) dropOldest() {
	var oldest key
	var since time.Time
	for k, entry := range r.entries {
		if since.IsZero() || entry.since.Before(since) {
			oldest, since = k, entry.since
		}
	}
	delete(r.entries, oldest)
}

func (r *refusals) forget(k key) { delete(r.entries, k) }

func (r *refusals) forgetIdentity(clientID string) {
	for k := range r.entries {
		if k.clientID == clientID {
			delete(r.entries, k)
		}
	}
}
