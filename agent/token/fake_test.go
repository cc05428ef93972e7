package token

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/store"
)

// fakeIssuer is an authority's token endpoint without a network.
type fakeIssuer struct {
	mu     sync.Mutex
	life   time.Duration
	delay  time.Duration // of each answer
	err    error         // of each answer
	answer func(n int, with *credential.Credential, resource string) (Issued, error)
	calls  []call
	atOnce int
	most   int
}

type call struct {
	at       time.Time
	clientID string
	resource string
	with     *credential.Credential
}

func (f *fakeIssuer) Issue(ctx context.Context, with *credential.Credential, resource string) (Issued, error) {
	f.mu.Lock()
	f.calls = append(f.calls, call{time.Now(), with.Identity.ClientID, resource, with})
	n := len(f.calls)
	f.atOnce++
	f.most = max(f.most, f.atOnce)
	delay, life, err, answer := f.delay, f.life, f.err, f.answer
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.atOnce--
		f.mu.Unlock()
	}()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return Issued{}, &lifecycle.Error{Class: lifecycle.ClassTransient, Op: "fake", Err: ctx.Err()}
		}
	}
	if answer != nil {
		return answer(n, with, resource)
	}
	if err != nil {
		return Issued{}, err
	}
	return Issued{Value: store.NewSecret(fmt.Sprintf("%s|%s|%d", with.Identity.ClientID, resource, n)), ExpiresIn: life}, nil
}

func (f *fakeIssuer) set(change func(*fakeIssuer)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fakeIssuer) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.calls)
}

func (f *fakeIssuer) since(n int) []call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls[n:])
}

// unreachable is what a driver returns for a link that is down.
func unreachable() error {
	return &lifecycle.Error{Class: lifecycle.ClassTransient, Op: "oauth: token", Reason: "connection refused"}
}

// fakeIdentities are what credential.Device is to the broker.
type fakeIdentities struct {
	mu        sync.Mutex
	standings map[string]credential.Standing
	observed  []observation
	clock     *lifecycle.Clock
	contact   *lifecycle.Contact
	judged    bool // a clock that cannot be believed shows in the state
}

type observation struct {
	clientID string
	with     *credential.Credential
	err      error
}

func (f *fakeIdentities) add(kind credential.Kind, clientID string) {
	id := credential.Identity{Kind: kind, ClientID: clientID, Name: "gw-" + clientID[len(clientID)-1:]}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.standings[clientID] = credential.Standing{Identity: id, State: lifecycle.Connected, Credential: &credential.Credential{Identity: id}}
}

func (f *fakeIdentities) change(clientID string, change func(*credential.Standing)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.standings[clientID]
	change(&s)
	f.standings[clientID] = s
}

func (f *fakeIdentities) enter(state lifecycle.State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, s := range f.standings {
		s.State, s.Reason, s.Fix = state, "reason of "+state.String(), "postern cure"
		f.standings[id] = s
	}
}

func (f *fakeIdentities) remove(clientID string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.standings, clientID)
}

func (f *fakeIdentities) Standing(clientID string) (credential.Standing, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.standings[clientID]
	if !ok {
		s.State = lifecycle.Unenrolled
	}
	if f.judged && s.State > lifecycle.ClockUntrusted && !f.clock.Now().Trusted {
		s.State = lifecycle.ClockUntrusted
	}
	return s, ok
}

func (f *fakeIdentities) Resolve(s Selector) (credential.Standing, error) {
	for _, st := range f.List() {
		if s.Matches(st.Identity) {
			return st, nil
		}
	}
	return credential.Standing{}, credential.ErrUnknownIdentity
}

func (f *fakeIdentities) List() []credential.Standing {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Values(f.standings))
}

func (f *fakeIdentities) Observe(clientID string, with *credential.Credential, err error) {
	now := f.clock.Now()
	if err == nil {
		f.contact.Seen(now)
	} else {
		f.contact.Failed(now, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.observed = append(f.observed, observation{clientID, with, err})
}

func (f *fakeIdentities) observations() []observation {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.observed)
}
