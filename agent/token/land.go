package token

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strconv"

	"postern/agent/lifecycle"
	"postern/platform"
)

// leastKept is the life below which a token is handed to those who wait for it
// and kept nowhere (firmware-notes/limits.md).
const leastKept = freshAge

// join returns the flight for a's key, a new one if the gates let it start.
// live says that a cached token could help out, forced that the caller wants
// to go past it. Errors: *LimitError, or what the authority said lately.
func (b *Broker) join(a *ask, now lifecycle.Instant, live, forced bool) (*flight, error) {
	if !validResource(a.key.resource) {
		return nil, ErrResource
	}
	peer := a.request.Caller.Peer
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := b.flights[a.key]; f != nil {
		return f, nil
	}
	s := b.slots[a.key]
	if live && !forced && s != nil && now.Boot < s.notBefore {
		return nil, noAnswer(0) // tried a moment ago: no use letting every caller wait for it
	}
	if err := b.refusals.find(a.key); err != nil {
		return nil, err
	}
	if !live {
		if err := b.peers.pass(peer); err != nil {
			return nil, err
		}
	}
	if s == nil {
		if err := b.roomLocked(peer, now); err != nil {
			return nil, err
		}
	}
	if wait := take(b.upstream); wait > 0 {
		return nil, &LimitError{Limit: "new tokens for this device", RetryAfter: wait}
	}
	return b.startLocked(&flight{key: a.key, owner: peer, forced: forced, fresh: s == nil}), nil
}

func (b *Broker) startLocked(f *flight) *flight {
	if s := b.slots[f.key]; s != nil {
		s.called = false
	}
	f.done = make(chan struct{})
	b.flights[f.key] = f
	go b.fly(f)
	return f
}

// roomLocked makes sure that one more key fits, for this peer and in all. What
// is over, or unused for a day, gives way; a live token in use never does
// (firmware-notes/attack-surface.md, T10). Fetches under way count, so that a success always fits.
func (b *Broker) roomLocked(peer platform.Peer, now lifecycle.Instant) *LimitError {
	all, own := len(b.slots), 0
	for _, s := range b.slots {
		if s.owner == peer {
			own++
		}
	}
	for _, f := range b.flights {
		if f.fresh {
			all++
			if f.owner == peer {
				own++
			}
		}
	}
	if own >= b.limits.PerPeer && !b.evictLocked(now, func(s *slot) bool { return s.owner == peer }) {
		return &LimitError{Limit: strconv.Itoa(b.limits.PerPeer) + " tokens for " + peer.String(), RetryAfter: maxRetryAfter}
	}
	if own < b.limits.PerPeer && all >= b.limits.Entries && !b.evictLocked(now, func(*slot) bool { return true }) {
		return &LimitError{Limit: strconv.Itoa(b.limits.Entries) + " tokens on this device", RetryAfter: maxRetryAfter}
	}
	return nil
}

// evictLocked drops the key that was used longest ago among those that fit,
// may give way and are not being fetched.
func (b *Broker) evictLocked(now lifecycle.Instant, fits func(*slot) bool) bool {
	var victim *slot
	for k, s := range b.slots {
		if !fits(s) || b.flights[k] != nil || !s.minted.over(now) && s.unused(now) < unusedLife {
			continue
		}
		if victim == nil || s.lastUsed.Load() < victim.lastUsed.Load() {
			victim = s
		}
	}
	if victim == nil {
		return false
	}
	b.dropLocked(victim.key)
	return true
}

func (b *Broker) dropLocked(k key) {
	delete(b.slots, k)
	b.unsaved.drop(k)
}

// land takes the outcome of a flight in. Only success writes to the cache.
func (b *Broker) land(f *flight, m *minted, err error) {
	now := b.now()
	if err == nil && m.trusted {
		b.clock.Raise(m.issued)
	}
	b.mu.Lock()
	if b.flights[f.key] == f {
		delete(b.flights, f.key)
	}
	switch {
	case f.dropped:
		m, err = nil, ErrUnknownIdentity
	case err == nil:
		b.keepLocked(f, m, now)
	default:
		b.failedLocked(f, err, now)
	}
	b.mu.Unlock()
	f.m, f.err = m, err
	b.report(f, m, err)
}

func (b *Broker) keepLocked(f *flight, m *minted, now lifecycle.Instant) {
	b.refusals.forget(f.key)
	s := b.slots[f.key]
	if s != nil {
		s.attempt, s.notBefore, s.lastError = 0, 0, ""
	}
	if m.left(now) < leastKept {
		return
	}
	if s == nil {
		s = &slot{key: f.key, owner: f.owner}
		s.touch(now)
		b.slots[f.key] = s
	}
	s.minted = m
	b.unsaved.put(f.key)
}

func (b *Broker) failedLocked(f *flight, err error, now lifecycle.Instant) {
	var upstream *lifecycle.Error
	if errors.As(err, &upstream) {
		b.refusals.remember(f.key, upstream)
	}
	s := b.slots[f.key]
	if s == nil {
		return
	}
	s.attempt++
	s.lastError = err.Error()
	s.notBefore = now.Boot + lifecycle.Backoff(s.attempt, s.minted.left(now), rand.Float64()) //nolint:gosec // jitter is no secret
}

// report writes one line for a fetch; for failures, which a broken link
// repeats, at most a few in ten seconds, the rest at debug level.
func (b *Broker) report(f *flight, m *minted, err error) {
	attrs := []slog.Attr{
		slog.String("identity", f.key.clientID), slog.String("resource", cut(f.key.resource, maxLogged)),
		slog.Bool("background", f.background),
	}
	if err == nil {
		b.log.LogAttrs(context.Background(), slog.LevelDebug, "token fetched",
			append(attrs, slog.String("token", m.digest), slog.Time("until", m.expires))...)
		return
	}
	attrs = append(attrs, slog.String("class", lifecycle.ClassOf(err).String()), slog.String("reason", cut(err.Error(), 2*maxLogged)))
	level := slog.LevelDebug
	b.complain.Do(func() { level = slog.LevelWarn })
	b.log.LogAttrs(context.Background(), level, "token not fetched", attrs...)
}
