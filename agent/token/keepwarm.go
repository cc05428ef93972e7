package token

import (
	"context"
	"math/rand/v2"
	"slices"
	"sort"
	"time"

	"postern/agent/credential"
	"postern/agent/lifecycle"
)

// Keep-warm (firmware-notes/lifecycle.md).
const (
	warmLife = 7 * lifecycle.Day // a resource nobody asked for in so long goes cold
	warmMost = 32                // the most recently used
	// unusedLife is after how long without use a key gives way to a new one.
	unusedLife = lifecycle.Day
	// warmAtOnce leaves lanes for callers.
	warmAtOnce = 4
	// warmTogether is the part of its life by which a token may be refreshed
	// early, when another one is due: refreshed together, they share a commit.
	warmTogether = 10

	tick      = lifecycle.Tick // no wait is longer
	warmRetry = time.Second    // when lanes or the upstream gate are taken
)

// warmth is what the background knows across rounds.
type warmth struct {
	probes  int           // tries in a row while the authority is not heard
	probeAt time.Duration // boot-time clock of the next one
}

// Run keeps tokens warm and writes them, until ctx ends; then it writes what
// is unwritten and returns nil. It wakes every 30 s, when a fetch has ended,
// and when contact is regained.
func (b *Broker) Run(ctx context.Context) error {
	regained := b.contact.Regained() // asked for again only after it fired, or one would be missed
	for {
		timer := time.NewTimer(b.round(ctx))
		select {
		case <-ctx.Done():
			timer.Stop()
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveLast)
			defer cancel()
			b.save(last)
			return nil
		case <-regained:
			regained = b.contact.Regained()
			b.spread(b.contact.Outage())
		case <-b.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (b *Broker) poke() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// round does what is due and says how long nothing else will be.
func (b *Broker) round(ctx context.Context) time.Duration {
	now := b.now()
	b.tend(now)
	next := b.refresh(now)
	return min(next, b.saveWhenQuiet(ctx, next), lifecycle.UntilTick(now.Boot, tick))
}

// spread plans background work after an outage: each key once, evenly over the
// time that lifecycle.Spread allows. Callers do not wait for it.
func (b *Broker) spread(outage time.Duration) {
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.warm.probes, b.warm.probeAt = 0, 0
	for _, s := range b.slots {
		s.attempt, s.notBefore = 0, 0
		s.spread = now.Boot + lifecycle.Spread(outage, rand.Float64()) //nolint:gosec // jitter is no secret
	}
}

// candidate is a key that may be refreshed, as it was at the look.
type candidate struct {
	slot   *slot
	minted *minted
	left   time.Duration
	used   int64         // boot-time clock, ns, of the last request
	from   time.Duration // boot-time clock: not before, for a failure or a spread
	called bool          // its round has begun
	flying bool          // it is being fetched
}

// refresh starts the background fetches that are due and returns the time
// until the next one is.
func (b *Broker) refresh(now lifecycle.Instant) time.Duration {
	due, next := dueAmong(b.candidates(now), now)
	if len(due) > 0 && b.contact.Failures() > 0 {
		due, next = b.probe(due, now)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range due {
		c.slot.called = true
		if !b.startBackgroundLocked(c.slot, now) {
			next = min(next, warmRetry)
		}
	}
	return next
}

// candidates are the most recently used keys whose identity may ask.
func (b *Broker) candidates(now lifecycle.Instant) []candidate {
	var all []candidate
	b.mu.RLock()
	for k, s := range b.slots {
		if s.unused(now) < warmLife {
			all = append(all, candidate{
				slot: s, minted: s.minted, left: s.minted.left(now), used: s.lastUsed.Load(), from: max(s.notBefore, s.spread),
				called: s.called, flying: b.flights[k] != nil,
			})
		}
	}
	b.mu.RUnlock()
	sort.Slice(all, func(i, j int) bool { return all[i].used > all[j].used })
	all = all[:min(len(all), warmMost)]
	standings := make(map[string]credential.Standing)
	return slices.DeleteFunc(all, func(c candidate) bool {
		id := c.slot.key.clientID
		standing, known := standings[id]
		if !known {
			standing, _ = b.identities.Standing(id)
			standings[id] = standing
		}
		return c.flying || !standing.MayIssue()
	})
}

// dueAmong picks those whose refresh is due, and if there is one, those that
// will be soon; and says when the next one is.
func dueAmong(all []candidate, now lifecycle.Instant) (due []candidate, next time.Duration) {
	next = tick
	var soon []candidate
	for _, c := range all {
		life := c.minted.life()
		in := c.left - (life - lifecycle.KeepWarm(life)) // a token that is over is due
		held := c.from - now.Boot
		switch {
		case held <= 0 && (in <= 0 || c.called):
			due = append(due, c)
		case c.called:
			next = min(next, held)
		case held <= 0 && in <= life/warmTogether:
			soon = append(soon, c)
			next = min(next, in)
		default:
			next = min(next, max(in, held))
		}
	}
	if len(due) == 0 {
		return nil, next
	}
	return append(due, soon...), next
}

// probe thins the background out while the authority is not heard: one key,
// the one used last, tries for all, with backoff. Its success is contact, and
// contact regained brings the others (spread).
func (b *Broker) probe(due []candidate, now lifecycle.Instant) ([]candidate, time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if wait := b.warm.probeAt - now.Boot; wait > 0 {
		return nil, wait
	}
	first := due[0]
	b.warm.probes++
	// Nothing is left to lose of a token that is over: lazier, then.
	left := first.left
	if left == 0 {
		left = warmLife + lifecycle.Day
	}
	wait := lifecycle.Backoff(b.warm.probes, left, rand.Float64()) //nolint:gosec // jitter is no secret
	b.warm.probeAt = now.Boot + wait
	return due[:1], wait
}

// startBackgroundLocked starts a fetch unless it must wait for lanes or the
// upstream gate, of which callers have the larger part. It returns false to be
// asked again soon.
func (b *Broker) startBackgroundLocked(s *slot, now lifecycle.Instant) bool {
	if b.slots[s.key] != s || b.flights[s.key] != nil {
		return true
	}
	if err := b.refusals.find(s.key); err != nil {
		s.called, s.notBefore = false, now.Boot+rejectedLife
		return true
	}
	background := 0
	for _, f := range b.flights {
		if f.background {
			background++
		}
	}
	if background >= warmAtOnce || len(b.lanes) >= upstreamAtOnce || b.upstream.Tokens() < backgroundKeeps+1 || take(b.upstream) > 0 {
		return false
	}
	b.startLocked(&flight{key: s.key, owner: s.owner, background: true})
	return true
}

// tend puts the cache in order: tokens are tied to the clocks of now; keys that
// nobody asks for and whose token is over go, and so do those of identities
// that are no longer here.
func (b *Broker) tend(now lifecycle.Instant) {
	b.mu.Lock()
	ids := make(map[string]bool)
	for k, s := range b.slots {
		s.recall(now)
		was := s.minted
		s.minted = was.rebased(now)
		switch {
		case was != s.minted: // once a boot: a restart in it must not forget
			b.unsaved.put(k)
		case s.unused(now) >= warmLife && s.minted.over(now) && b.flights[k] == nil:
			b.dropLocked(k)
			continue
		case s.lastUsed.Load()-s.savedUse >= int64(useDaily):
			b.unsaved.put(k)
		}
		ids[k.clientID] = true
	}
	b.mu.Unlock()
	b.dropStrangers(ids)
}

// dropStrangers forgets tokens of identities that are not on this device any
// more. It believes that only while another identity is in order: a damaged
// store has no identities either, and its tokens must survive its repair.
func (b *Broker) dropStrangers(ids map[string]bool) {
	var strangers []string
	for id := range ids {
		if _, ok := b.identities.Standing(id); !ok {
			strangers = append(strangers, id)
		}
	}
	if len(strangers) == 0 {
		return
	}
	inOrder := func(s credential.Standing) bool { return s.State.MayIssue() }
	if !slices.ContainsFunc(b.identities.List(), inOrder) {
		return
	}
	for _, id := range strangers {
		b.Forget(id)
	}
}
