package authoritytest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/agent/token"
)

// IssuerCase is a driver with a token issuer behind it.
type IssuerCase struct {
	Issuer     token.Issuer
	Credential *credential.Credential // gets tokens for Resource
	Resource   string
	Unknown    string // a resource that does not exist there; empty if all do
	// UnknownClass is what asking for it is; 0 is BadResource.
	UnknownClass lifecycle.Class
	// Renewed is Credential after a renewal with a new key; nil if the issuer
	// has to be told of keys.
	Renewed func(t *testing.T) *credential.Credential
	// Withdraw has the authority forget the identity; nil if the suite cannot.
	Withdraw func(t *testing.T)
	// Age lets time go by until the key is not new any more; nil if the suite cannot.
	Age func(t *testing.T)
}

// Issuer is what every driver of token.Issuer promises, whatever stands behind
// it. open is called for each promise, in a bubble of its own.
func Issuer(t *testing.T, open func(t *testing.T, w *World) IssuerCase) {
	t.Helper()
	hold(t, IssuerPromises(), open)
}

// IssuerPromises are the promises one by one, for suites that bring a real
// server and real time.
func IssuerPromises() map[string]func(t *testing.T, c IssuerCase) {
	return map[string]func(t *testing.T, c IssuerCase){
		"a credential becomes a token":            issues,
		"each call makes a new token":             issuesAnew,
		"an unknown resource is told apart":       refusesUnknownResources,
		"another's key gets nothing":              refusesStrangers,
		"a withdrawn identity gets nothing":       refusesWithdrawn,
		"a new key works with nothing changed":    followsRenewals,
		"a caller that hangs up gets its error":   hangsUp,
		"calls do not disturb each other's token": issuesInParallel,
	}
}

func (c IssuerCase) issue(t *testing.T, with *credential.Credential) token.Issued {
	t.Helper()
	got, err := c.Issuer.Issue(t.Context(), with, c.Resource)
	if err != nil {
		t.Fatal(err)
	}
	if got.Value.Empty() || got.ExpiresIn <= 0 || got.ExpiresIn > 25*time.Hour {
		t.Fatalf("a token for %v", got.ExpiresIn)
	}
	return got
}

func issues(t *testing.T, c IssuerCase) { c.issue(t, c.Credential) }

func issuesAnew(t *testing.T, c IssuerCase) {
	first := c.issue(t, c.Credential)
	for range 3 {
		if c.issue(t, c.Credential).Value.Equal(first.Value) {
			t.Error("the same token twice: the driver keeps tokens")
		}
	}
}

func refusesUnknownResources(t *testing.T, c IssuerCase) {
	class := c.UnknownClass
	if class == 0 {
		class = lifecycle.ClassBadResource
	}
	for _, bad := range []string{"", "a b", "a\r\nb"} {
		_, err := c.Issuer.Issue(t.Context(), c.Credential, bad)
		WantError(t, err, lifecycle.ClassBadResource, "")
	}
	if c.Unknown != "" {
		_, err := c.Issuer.Issue(t.Context(), c.Credential, c.Unknown)
		WantError(t, err, class, "")
	}
	c.issue(t, c.Credential) // it was the resource, not the identity
}

func refusesStrangers(t *testing.T, c IssuerCase) {
	stranger := NewPKI(t, time.Now()).Credential(c.Credential.Identity.ClientID)
	if _, err := c.Issuer.Issue(t.Context(), stranger, c.Resource); err == nil {
		t.Error("a stranger got a token under a known name")
	}
	impostor := *c.Credential
	impostor.Signer = NewKey(t)
	if _, err := c.Issuer.Issue(t.Context(), &impostor, c.Resource); err == nil {
		t.Error("a known certificate got a token with another key")
	}
	c.issue(t, c.Credential)
}

func refusesWithdrawn(t *testing.T, c IssuerCase) {
	if c.Withdraw == nil {
		return // refusesStrangers has shown a refusal
	}
	c.issue(t, c.Credential)
	c.Withdraw(t)
	_, err := c.Issuer.Issue(t.Context(), c.Credential, c.Resource)
	if c.Age != nil { // as long as the key is new, it may just not have arrived
		if !errors.Is(err, token.ErrNotReplicated) {
			t.Errorf("with a new key: %v", err)
		}
		c.Age(t)
		_, err = c.Issuer.Issue(t.Context(), c.Credential, c.Resource)
	}
	WantError(t, err, lifecycle.ClassRejected, "")
}

func followsRenewals(t *testing.T, c IssuerCase) {
	if c.Renewed == nil {
		return // a server with pinned keys cannot
	}
	c.issue(t, c.Credential)
	next := c.Renewed(t)
	c.issue(t, next)
	c.issue(t, c.Credential) // until it is retired
}

func hangsUp(t *testing.T, c IssuerCase) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.Issuer.Issue(ctx, c.Credential, c.Resource)
	if !errors.Is(err, context.Canceled) || lifecycle.ClassOf(err) != lifecycle.ClassTransient {
		t.Errorf("got %v", err)
	}
	c.issue(t, c.Credential)
}

func issuesInParallel(t *testing.T, c IssuerCase) {
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := c.Issuer.Issue(t.Context(), c.Credential, c.Resource); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}
