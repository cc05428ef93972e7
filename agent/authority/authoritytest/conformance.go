package authoritytest

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"sync"
	"testing"
	"time"

	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/store"
)

// AuthorityCase is a driver with an authority behind it.
type AuthorityCase struct {
	Authority credential.Authority
	Roots     *x509.CertPool
	// Claim mints a claim that was not used, for a machine that does not exist yet.
	Claim func(t *testing.T) store.Secret
	// Foreign is a claim of another authority.
	Foreign store.Secret
	// Revoke has the authority revoke a certificate; nil if the suite cannot
	// reach an administrator.
	Revoke func(t *testing.T, leaf *x509.Certificate)
	// Waits says that real time passes, so that nothing may wait long.
	RealTime bool
	// Now is the time by which chains are checked; nil is time.Now.
	Now func() time.Time
}

// Authority is what every driver of credential.Authority promises, whatever
// stands behind it. open is called for each promise, in a bubble of its own.
func Authority(t *testing.T, open func(t *testing.T, w *World) AuthorityCase) {
	t.Helper()
	hold(t, AuthorityPromises(), open)
}

// hold checks each promise of a driver that open makes.
func hold[C any](t *testing.T, promises map[string]func(*testing.T, C), open func(*testing.T, *World) C) {
	t.Helper()
	for name, promise := range promises {
		t.Run(name, func(t *testing.T) {
			In(t, func(t *testing.T, w *World) { promise(t, open(t, w)) })
		})
	}
}

// AuthorityPromises are the promises one by one, for suites that bring a real
// authority and real time.
func AuthorityPromises() map[string]func(t *testing.T, c AuthorityCase) {
	return map[string]func(t *testing.T, c AuthorityCase){
		"a claim becomes a certificate over our key": enrolls,
		"a claim works once":                         enrollsOnce,
		"a foreign claim is denied":                  deniesForeignClaims,
		"what is no claim is denied":                 deniesGarbage,
		"a renewal is over the pending key":          renews,
		"a lost answer costs nothing":                renewsAgain,
		"the old certificate works until retired":    keepsTheOldOne,
		"a retired certificate is rejected":          retires,
		"a revoked certificate is rejected":          rejectsRevoked,
		"a stranger is not renewed":                  rejectsStrangers,
		"a caller that hangs up gets his error":      honoursContexts,
		"calls do not disturb each other":            standsParallelCalls,
		"the authority can be asked for contact":     beats,
	}
}

func (c AuthorityCase) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

// enroll makes a device and checks what it was given.
func (c AuthorityCase) enroll(t *testing.T) *credential.Credential {
	t.Helper()
	key := NewKey(t)
	chain, err := c.Authority.Enroll(t.Context(), key, c.Claim(t))
	if err != nil {
		t.Fatal(err)
	}
	c.verify(t, chain, key.Public(), nil)
	return &credential.Credential{Identity: credential.Identity{ClientID: chain[0].Subject.CommonName}, Signer: key, Chain: chain, Made: c.now()}
}

// renew renews and checks.
func (c AuthorityCase) renew(t *testing.T, current *credential.Credential, pending crypto.Signer) *credential.Credential {
	t.Helper()
	chain, err := c.Authority.Renew(t.Context(), current, pending)
	if err != nil {
		t.Fatal(err)
	}
	c.verify(t, chain, pending.Public(), current.Leaf())
	return &credential.Credential{Identity: current.Identity, Signer: pending, Chain: chain, Made: c.now()}
}

func (c AuthorityCase) verify(t *testing.T, chain []*x509.Certificate, pub crypto.PublicKey, previous *x509.Certificate) {
	t.Helper()
	if err := credential.VerifyChain(chain, c.Roots, pub, previous, c.now()); err != nil {
		t.Fatal(err)
	}
}

// pass lets time go by, so that a later certificate ends later (whole seconds).
func (c AuthorityCase) pass(t *testing.T) {
	t.Helper()
	wait := time.Hour
	if c.RealTime {
		wait = 1100 * time.Millisecond
	}
	select {
	case <-time.After(wait):
	case <-t.Context().Done():
	}
}

func enrolls(t *testing.T, c AuthorityCase) {
	leaf := c.enroll(t).Leaf()
	if leaf.Subject.CommonName == "" || len(leaf.URIs)+len(leaf.DNSNames) == 0 {
		t.Errorf("the certificate names nobody: %v", leaf.Subject)
	}
	if life := leaf.NotAfter.Sub(leaf.NotBefore); life < time.Minute {
		t.Errorf("it lives %v", life)
	}
}

func enrollsOnce(t *testing.T, c AuthorityCase) {
	claim := c.Claim(t)
	if _, err := c.Authority.Enroll(t.Context(), NewKey(t), claim); err != nil {
		t.Fatal(err)
	}
	_, err := c.Authority.Enroll(t.Context(), NewKey(t), claim)
	c.wantAnswer(t, err, lifecycle.ClassDenied)
}

func deniesForeignClaims(t *testing.T, c AuthorityCase) {
	if c.Foreign.Empty() {
		t.Fatal("the case brings no foreign claim")
	}
	_, err := c.Authority.Enroll(t.Context(), NewKey(t), c.Foreign)
	c.wantAnswer(t, err, lifecycle.ClassDenied)
}

func deniesGarbage(t *testing.T, c AuthorityCase) {
	for _, garbage := range []string{"", "password", "a.b.c"} {
		_, err := c.Authority.Enroll(t.Context(), NewKey(t), store.NewSecret(garbage))
		WantError(t, err, lifecycle.ClassDenied, "")
	}
}

func renews(t *testing.T, c AuthorityCase) {
	current := c.enroll(t)
	for range 3 {
		c.pass(t)
		next := c.renew(t, current, NewKey(t))
		if next.Leaf().SerialNumber.Cmp(current.Leaf().SerialNumber) == 0 {
			t.Error("the same certificate twice")
		}
		current = next
	}
}

// renewsAgain is ID5: the authority made the change, and the answer was lost.
func renewsAgain(t *testing.T, c AuthorityCase) {
	current, pending := c.enroll(t), NewKey(t)
	c.pass(t)
	c.renew(t, current, pending)
	again := c.renew(t, current, pending)
	c.pass(t)
	c.renew(t, again, NewKey(t))
}

func keepsTheOldOne(t *testing.T, c AuthorityCase) {
	old := c.enroll(t)
	c.pass(t)
	c.renew(t, old, NewKey(t))
	c.pass(t)
	c.renew(t, old, NewKey(t))
}

func retires(t *testing.T, c AuthorityCase) {
	old := c.enroll(t)
	c.pass(t)
	current := c.renew(t, old, NewKey(t))
	for range 2 { // the second time there is nothing left to do
		if err := c.Authority.Retire(t.Context(), old); err != nil {
			t.Errorf("retire: %v", err)
		}
	}
	_, err := c.Authority.Renew(t.Context(), old, NewKey(t))
	c.wantAnswer(t, err, lifecycle.ClassRejected)
	c.pass(t)
	c.renew(t, current, NewKey(t))
}

func rejectsRevoked(t *testing.T, c AuthorityCase) {
	if c.Revoke == nil {
		return // Retire is the same from the other side
	}
	current := c.enroll(t)
	c.Revoke(t, current.Leaf())
	_, err := c.Authority.Renew(t.Context(), current, NewKey(t))
	c.wantAnswer(t, err, lifecycle.ClassRejected)
	if as, ok := c.Authority.(credential.Assigner); ok {
		if _, err := as.Assignments(t.Context(), current, ""); !errors.Is(err, credential.ErrNoAssignments) {
			c.wantAnswer(t, err, lifecycle.ClassRejected)
		}
	}
}

// rejectsStrangers: a certificate of another authority, under a known name. It
// may end in a TLS alert, which is no answer that could be believed.
func rejectsStrangers(t *testing.T, c AuthorityCase) {
	known := c.enroll(t)
	stranger := NewPKI(t, c.now()).Credential(known.Identity.ClientID)
	_, err := c.Authority.Renew(t.Context(), stranger, NewKey(t))
	if class := lifecycle.ClassOf(err); err == nil || class != lifecycle.ClassRejected && class != lifecycle.ClassTransient && class != lifecycle.ClassDenied {
		t.Errorf("a stranger: %v", err)
	}
	c.pass(t)
	c.renew(t, known, NewKey(t))
}

func honoursContexts(t *testing.T, c AuthorityCase) {
	current := c.enroll(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, err := range map[string]error{
		"enroll": second(c.Authority.Enroll(ctx, NewKey(t), c.Claim(t))),
		"renew":  second(c.Authority.Renew(ctx, current, NewKey(t))),
		"retire": c.Authority.Retire(ctx, current),
	} {
		if !errors.Is(err, context.Canceled) || lifecycle.ClassOf(err) != lifecycle.ClassTransient {
			t.Errorf("%s: %v", name, err)
		}
	}
	c.pass(t)
	c.renew(t, current, NewKey(t)) // and nothing has come of them
}

func second[T any](_ T, err error) error { return err }

func standsParallelCalls(t *testing.T, c AuthorityCase) {
	var all sync.WaitGroup
	for range 4 {
		current := c.enroll(t)
		all.Go(func() {
			pending := NewKey(t)
			c.pass(t)
			chain, err := c.Authority.Renew(t.Context(), current, pending)
			if err != nil {
				t.Error(err)
				return
			}
			if err := credential.VerifyChain(chain, c.Roots, pending.Public(), current.Leaf(), c.now()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func beats(t *testing.T, c AuthorityCase) {
	current := c.enroll(t)
	heart, ok := c.Authority.(credential.Heartbeater)
	if ok {
		if err := heart.Heartbeat(t.Context()); err != nil {
			t.Errorf("heartbeat: %v", err)
		}
	}
	assigner, canAssign := c.Authority.(credential.Assigner)
	if !ok && !canAssign {
		t.Fatal("there is no way to ask for contact")
	}
	if !canAssign {
		return
	}
	list, err := assigner.Assignments(t.Context(), current, "")
	if errors.Is(err, credential.ErrNoAssignments) {
		return
	}
	if err != nil || len(list.Identities) == 0 || list.Identities[0].Identity.ClientID != current.Identity.ClientID || list.ETag == "" {
		t.Fatalf("got %+v, %v", list, err)
	}
	if _, err := assigner.Assignments(t.Context(), current, list.ETag); !errors.Is(err, credential.ErrNotModified) {
		t.Errorf("unchanged: %v", err)
	}
}

// wantAnswer wants a refusal in the authority's own words.
func (c AuthorityCase) wantAnswer(t *testing.T, err error, class lifecycle.Class) {
	t.Helper()
	WantError(t, err, class, "")
	var e *lifecycle.Error
	if errors.As(err, &e) && !e.Answered {
		t.Errorf("it does not count as an answer: %v", err)
	}
}
