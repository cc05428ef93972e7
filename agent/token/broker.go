package token

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/store"
)

// How long a caller waits (firmware-notes/limits.md).
const (
	callerWait = 20 * time.Second // for a fetch, whatever it is doing
	// quickWait is for how long a caller waits for an authority that shows no
	// sign of life, and for a fresher token when the cached one still lives.
	quickWait = 2 * time.Second
	// freshLeft is what a token handed out should have left if a fresher one
	// can be had: clients treat less as stale (firmware-notes/wire.md).
	freshLeft = 5 * time.Minute
	// freshAge keeps tokens whose whole life is short from being fetched anew
	// for every request.
	freshAge = time.Minute
	// forcedEvery is how often the cache of one key may be gone past.
	forcedEvery = time.Minute
)

// Broker hands out tokens. Make it with NewBroker. All methods are safe for
// concurrent use; no lock is held while the authority, the disk or a caller of
// Audit is waited for.
type Broker struct {
	identities Identities
	issuer     Issuer
	clock      *lifecycle.Clock
	contact    *lifecycle.Contact
	cache      *store.Cache
	limits     Limits
	log        *slog.Logger
	audit      func(Event)
	grants     atomic.Pointer[Grants]

	upstream *rate.Limiter
	lanes    chan struct{} // one element for each call under way
	complain rate.Sometimes
	wake     chan struct{} // capacity 1: the loop has something to do
	process  string        // stands for the boot id where the kernel hides it
	count    counters

	mu       sync.RWMutex
	slots    map[key]*slot   // guarded by mu
	flights  map[key]*flight // guarded by mu
	refusals *refusals       // guarded by mu
	peers    *peerGates      // guarded by mu
	unsaved  unsaved         // guarded by mu
	warm     warmth          // guarded by mu
}

// NewBroker returns a broker that knows the tokens of o.Cache. It contacts
// nobody. Tokens are kept warm and written only while Run runs.
func NewBroker(o Options) *Broker {
	b := &Broker{
		identities: o.Identities, issuer: o.Issuer, clock: o.Clock, contact: o.Contact, cache: o.Cache,
		limits: o.Limits.withDefaults(), log: o.Log, audit: o.Audit,
		upstream: rate.NewLimiter(upstreamRate, upstreamBurst),
		lanes:    make(chan struct{}, upstreamAtOnce),
		complain: rate.Sometimes{First: 5, Interval: 10 * time.Second},
		wake:     make(chan struct{}, 1),
		process:  "process " + rand.Text(),
		slots:    make(map[key]*slot),
		flights:  make(map[key]*flight),
		refusals: newRefusals(),
		peers:    newPeerGates(),
		unsaved:  unsaved{puts: make(map[key]bool), drops: make(map[key]bool)},
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	if b.contact == nil {
		b.contact = new(lifecycle.Contact)
	}
	if b.audit == nil {
		b.audit = func(Event) {}
	}
	b.grants.Store(o.Grants)
	b.load()
	return b
}

// now reads the clocks. Where there is no boot id, the boot-time clock proves a
// life for as long as this process lives.
func (b *Broker) now() lifecycle.Instant {
	now := b.clock.Now()
	if now.BootID == "" {
		now.BootID = b.process
	}
	return now
}

// SetGrants replaces the grants. Requests that were let through keep running.
func (b *Broker) SetGrants(g *Grants) { b.grants.Store(g) }

// Resolve finds the identity that a selector means. Errors: ErrUnknownIdentity,
// ErrAmbiguous.
func (b *Broker) Resolve(s Selector) (credential.Standing, error) { return b.identities.Resolve(s) }

// Token returns a token for r, from memory if one lives, else from the
// authority. A live token is served whatever goes wrong; near its end only
// when no fresher one can be had within 2 s. The caller's context ends its own
// wait and nothing else: the fetch goes on for others and for the cache.
//
// Errors: *GrantError (ErrNotGranted), *StateError, *LimitError (ErrTooMany),
// ErrUnknownIdentity, ErrResource, else a *lifecycle.Error whose class says what
// the authority thinks; it wraps the context's error for a caller that left.
func (b *Broker) Token(ctx context.Context, r Request) (Token, error) {
	b.count.requests.Add(1)
	standing, ok := b.identities.Standing(r.ClientID)
	if !ok {
		return Token{}, stranger(&r, &standing)
	}
	a := ask{request: r, standing: standing, key: key{standing.Identity.ClientID, r.Resource}}
	// The only choke point: nothing below may hand out a token that this did
	// not allow (TestNothingIsHandedOutPastTheGrants).
	a.reason, ok = b.grants.Load().Allow(r.Caller, standing.Identity, r.Resource)
	if !ok {
		return Token{}, b.refuseByGrant(&a)
	}
	if !standing.State.ServesCached(true) {
		b.count.refusedByState.Add(1)
		return Token{}, stateError(&standing, nil)
	}
	now := b.now()
	m, forced := b.cached(&a, now)
	if left := m.left(now); left > 0 && !forced && (!standing.MayIssue() || !wantsFresher(m, left)) {
		return b.answer(&a, m, left, now, sourceCache), nil
	}
	return b.fresh(ctx, &a, m, forced, now)
}

// stranger words a client id that this device does not have. On a device that
// has no identity at all, Resolve gives a request none, and the state is why.
func stranger(r *Request, device *credential.Standing) error {
	if device.State == lifecycle.Damaged || r.ClientID == "" && device.State == lifecycle.Unenrolled {
		return stateError(device, nil)
	}
	return ErrUnknownIdentity
}

// ask is one request on its way through the broker. It holds values: pointers
// in it would put each cached request on the heap.
type ask struct {
	request  Request
	standing credential.Standing
	reason   string // why it is allowed, or not
	key      key
}

// cached returns what the cache has, nil if nothing, and whether the request
// asks to go past it and may. It notes the use.
func (b *Broker) cached(a *ask, now lifecycle.Instant) (m *minted, forced bool) {
	b.mu.RLock()
	s := b.slots[a.key]
	if s == nil {
		b.mu.RUnlock()
		return nil, false
	}
	m = s.minted
	b.mu.RUnlock()
	s.touch(now)
	if !a.request.Refresh && (a.request.RefreshDigest == "" || !m.matches(a.request.RefreshDigest)) {
		return m, false
	}
	return m, a.standing.MayIssue() && s.force(now)
}

// force reports whether a forced refresh is due, and if so counts this one.
func (s *slot) force(now lifecycle.Instant) bool {
	last, at := s.forced.Load(), max(int64(now.Boot), 1)
	if last != 0 && at-last < int64(forcedEvery) {
		return false
	}
	return s.forced.CompareAndSwap(last, at)
}

// wantsFresher reports whether a token with so much left should not be handed
// out if another can be had.
func wantsFresher(m *minted, left time.Duration) bool {
	life := m.life()
	return left < freshLeft && life-left >= min(freshAge, life/2)
}

// fresh gets a token from the authority; a cached one that lives helps out.
func (b *Broker) fresh(ctx context.Context, a *ask, m *minted, forced bool, now lifecycle.Instant) (Token, error) {
	live := m.left(now) > 0
	if !a.standing.MayIssue() {
		b.count.refusedByState.Add(1)
		return Token{}, stateError(&a.standing, nil)
	}
	f, err := b.join(a, now, live, forced)
	if err == nil {
		wait := callerWait
		if live && !forced {
			wait = quickWait
			if a.standing.State == lifecycle.Offline || b.contact.Failures() > 0 {
				wait = 0 // the fetch goes on behind the caller's back
			}
		}
		var got *minted
		if got, err = b.await(ctx, f, wait); err == nil {
			now = b.now()
			if left := got.left(now); left > 0 {
				return b.answer(a, got, left, now, sourceFetched), nil
			}
			err = &lifecycle.Error{Class: lifecycle.ClassTransient, Op: "token", Reason: "it was over before it could be handed out"}
		}
	}
	now = b.now()
	if left := m.left(now); left > 0 {
		return b.answer(a, m, left, now, sourceCache), nil
	}
	return Token{}, b.explain(a, err)
}

// answer counts, audits and words a token that is handed out.
func (b *Broker) answer(a *ask, m *minted, left time.Duration, now lifecycle.Instant, source string) Token {
	expires := now.Wall.Add(left)
	if source == sourceCache {
		b.count.cached.Add(1)
	} else {
		b.count.fetched.Add(1)
	}
	b.audit(Event{
		Name: TokenIssued, Time: now.Wall, Reason: a.reason, Request: a.request, Identity: a.standing.Identity,
		Source: source, Token: m.digest, Expires: expires,
	})
	return Token{
		Value: m.value, Identity: a.standing.Identity, Resource: a.request.Resource,
		Remaining: left, ExpiresOn: expires, NotBefore: expires.Add(-m.life()), FromCache: source == sourceCache,
	}
}

// explain words why there is no token.
func (b *Broker) explain(a *ask, err error) error {
	var limit *LimitError
	if errors.As(err, &limit) {
		b.count.refusedByLimit.Add(1)
		b.deny(a, limit.Error())
		return err
	}
	var upstream *lifecycle.Error
	if a.standing.State == lifecycle.Offline && errors.As(err, &upstream) &&
		upstream.Class == lifecycle.ClassTransient && !upstream.Answered {
		return stateError(&a.standing, err)
	}
	return err
}

func (b *Broker) refuseByGrant(a *ask) error {
	b.count.refusedByGrant.Add(1)
	b.deny(a, a.reason)
	return &GrantError{
		Peer: a.request.Caller.Peer, Identity: a.standing.Identity, Resource: a.request.Resource,
		Reason: a.reason, Fix: grantCommand(&a.request, a.standing.Identity),
	}
}

func (b *Broker) deny(a *ask, reason string) {
	b.audit(Event{Name: TokenDenied, Time: b.now().Wall, Reason: reason, Request: a.request, Identity: a.standing.Identity})
}

// stateError words a state that gives no token; try is the attempt that
// failed, nil if none was made.
func stateError(s *credential.Standing, try error) *StateError {
	return &StateError{State: s.State, Exposed: s.Exposed != "", Reason: s.Reason, Fix: s.Fix, Until: s.Until, Err: try}
}
