package credential

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"postern/agent/lifecycle"
	"postern/store"
)

// Renew attempts a renewal now, whether one is due or not, and tells step
// about each stage; step may be nil. An empty client id means every identity
// that has a certificate. The floor of 30 s between two attempts stands.
// Errors are *Problem.
func (d *Device) Renew(ctx context.Context, clientID string, step func(string)) error {
	if step == nil {
		step = mute
	}
	end, err := d.begin("renew")
	if err != nil {
		return err
	}
	defer end()
	which, err := d.renewable(clientID)
	if err != nil {
		return err
	}
	var failed []error
	for _, h := range which {
		if err := d.renew(ctx, h, step); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", label(h.Current().Identity), err))
		}
	}
	if err := errors.Join(failed...); err != nil {
		return d.problem("renew", err)
	}
	return nil
}

// renewable lists what Renew may work on, or says why there is nothing.
func (d *Device) renewable(clientID string) ([]*Holder, error) {
	now := d.clock.Now()
	d.mu.RLock()
	defer d.mu.RUnlock()
	if clientID != "" && len(d.holders) > 0 && d.holders[strings.ToLower(clientID)] == nil {
		return nil, &Problem{ID: "unknown-identity", Op: "renew", Fix: fixIdentities, Err: fmt.Errorf("%w: %s", ErrUnknownIdentity, clientID)}
	}
	var which []*Holder
	blocked := d.vacant()
	for _, h := range d.holders {
		if clientID != "" && h.id != strings.ToLower(clientID) {
			continue
		}
		st := d.standing(h, now)
		switch wait := h.hold - now.Boot; {
		case !st.State.MayIssue() || st.Credential == nil:
			blocked = st
		case wait > 0:
			return nil, &Problem{
				ID: "too-soon", Op: "renew", Fix: fmt.Sprintf("sleep %d; sudo postern renew", int(wait/time.Second)+1),
				Err: fmt.Errorf("the last attempt was a moment ago: wait %s", wait.Round(time.Second)),
			}
		default:
			which = append(which, h)
		}
	}
	if len(which) == 0 {
		return nil, stateProblem("renew", blocked)
	}
	return which, nil
}

// stateProblem says that the state does not allow op.
func stateProblem(op string, st Standing) *Problem {
	if st.Exposed != "" { // whatever the state, the keys are as good as lost
		return &Problem{ID: "key-file-access", Op: op, State: lifecycle.Damaged, Fix: st.Fix, Err: fmt.Errorf("%w: %s", ErrState, st.Reason)}
	}
	err := fmt.Errorf("%w: %s: %s", ErrState, st.State, st.Reason)
	if st.State == lifecycle.Unenrolled {
		err = ErrNotConnected
	}
	return &Problem{ID: "state-" + strings.ToLower(st.State.String()), Op: op, State: st.State, Fix: st.Fix, Err: err}
}

// renew makes one attempt, whose outcome is a fact, one log line and one event.
// Nothing else works on h meanwhile.
func (d *Device) renew(ctx context.Context, h *Holder, step func(string)) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	with := h.Current()
	if with == nil {
		return ErrNotConnected
	}
	err := d.attempt(ctx, h, with, step)
	if errors.Is(err, context.Canceled) && errors.Is(ctx.Err(), context.Canceled) {
		return err // stopped by us: the pending key waits
	}
	if err != nil {
		d.renewalFailed(h, with, err)
		return err
	}
	d.accepted(h, h.Current(), byRenewal)
	d.mu.Lock()
	h.hold = d.clock.Now().Boot + lifecycle.RetryFloor // an authority whose certificates are due at once must not make a loop
	h.next = h.hold
	d.mu.Unlock()
	leaf := h.Current().Leaf()
	d.emit(Event{Kind: EventRenewed, Identity: with.Identity, Until: leaf.NotAfter.UTC(), Reason: lifeOf(leaf)})
	return nil
}

// attempt is the renewal of firmware-notes/lifecycle.md: pending key stored, authority
// asked, answer verified, one commit that swaps.
func (d *Device) attempt(ctx context.Context, h *Holder, with *Credential, step func(string)) error {
	auth, err := d.authority()
	if err != nil {
		return err
	}
	pending, err := d.pendingKey(h, step)
	if err != nil {
		return err
	}
	signer, err := signerOf(pending)
	if err != nil {
		return err
	}
	chain, err := auth.Renew(ctx, with, signer)
	d.heard(err)
	if err != nil {
		return err
	}
	if err := d.verify(chain, signer.Public(), with.Leaf()); err != nil {
		return err
	}
	step("certificate: " + lifeOf(chain[0]))
	if err := d.swap(h, pending, chain); err != nil {
		return err
	}
	step("stored: the new key is in use; the old one is kept until the new one has earned a token")
	return nil
}

// pendingKey returns the key that waits for its certificate, or makes one and
// stores it: it must be on disk before the authority hears of it, or a lost
// answer would lose the identity (ID5).
func (d *Device) pendingKey(h *Holder, step func(string)) (store.KeyRecord, error) {
	if kept, ok := d.storedPending(h.id); ok {
		step("key: the one made at " + stamp(kept.Made) + " is used again")
		return kept, nil
	}
	fresh, _, err := d.newKey(step)
	if err != nil {
		return store.KeyRecord{}, err
	}
	err = d.change(h.id, func(rec *store.IdentityRecord) { rec.Pending = &fresh })
	if err != nil {
		return store.KeyRecord{}, d.storeFailed(h, "store pending key", err)
	}
	step("key: made and stored, protected by " + fresh.Protection)
	return fresh, nil
}

func (d *Device) storedPending(id string) (store.KeyRecord, bool) {
	records, err := d.file.Identities()
	if err != nil {
		return store.KeyRecord{}, false
	}
	for _, rec := range records {
		if strings.EqualFold(rec.ClientID, id) && rec.Pending != nil {
			_, err := signerOf(*rec.Pending)
			return *rec.Pending, err == nil
		}
	}
	return store.KeyRecord{}, false
}

// verify applies VerifyChain with the pinned root and the time that may be
// believed. A bad certificate is the authority's fault of the moment: Transient.
func (d *Device) verify(chain []*x509.Certificate, pub crypto.PublicKey, previous *x509.Certificate) error {
	d.mu.RLock()
	dev := d.dev
	d.mu.RUnlock()
	return d.verifyFor(dev, chain, pub, previous)
}

func (d *Device) verifyFor(dev store.DeviceRecord, chain []*x509.Certificate, pub crypto.PublicKey, previous *x509.Certificate) error {
	roots, _, err := pinned(dev)
	if err == nil {
		err = VerifyChain(chain, roots, pub, previous, d.clock.VerifyTime())
	}
	if err != nil {
		return &lifecycle.Error{Class: lifecycle.ClassTransient, Answered: true, Op: "verify", Err: err}
	}
	if leaf := chain[0]; leaf.NotAfter.Sub(leaf.NotBefore) > longLifetime {
		d.log.Warn("the authority issues certificates of a very long life", "until", stamp(leaf.NotAfter),
			"subject", words(errors.New(leaf.Subject.String())))
	}
	return nil
}

// swap is the one commit after which the new key is the one in use.
func (d *Device) swap(h *Holder, key store.KeyRecord, chain []*x509.Certificate) error {
	key.Chain = rawChain(chain)
	err := d.change(h.id, func(rec *store.IdentityRecord) {
		rec.Previous, rec.Current, rec.Pending = rec.Current, &key, nil
	})
	if err != nil {
		return d.storeFailed(h, "store certificate", err)
	}
	return nil
}

// storeFailed words a failed commit. It may still have happened: then memory
// shows it, and the next attempt finds nothing due.
func (d *Device) storeFailed(h *Holder, op string, err error) error {
	var id Identity // zero: the device's own record
	if h != nil {
		d.mu.RLock()
		id = h.identity
		d.mu.RUnlock()
	}
	d.emit(Event{Kind: EventStoreFailed, Identity: id, Reason: words(fmt.Errorf("%s: %w", op, err)), Fix: fixStore})
	return &lifecycle.Error{Class: lifecycle.ClassTransient, Op: op, Err: err}
}

// renewalFailed plans the next attempt and makes the failure a fact.
func (d *Device) renewalFailed(h *Holder, with *Credential, err error) {
	class := lifecycle.ClassOf(err)
	if class == lifecycle.ClassRejected {
		d.judge(h, with, byRenewal, err)
	}
	now := d.clock.Now()
	d.mu.Lock()
	h.attempts++
	h.lastError = words(err)
	left := with.Leaf().NotAfter.Sub(now.Wall)
	wait := lifecycle.Backoff(h.attempts, left, d.chance())
	if class == lifecycle.ClassRejected {
		// The next one confirms it, or not.
		wait = lifecycle.ConfirmRejection + lifecycle.Backoff(1, left, d.chance())
	}
	if !h.rejectedAt.IsZero() {
		wait = lifecycle.RejectedRetry
	}
	h.hold = now.Boot + max(lifecycle.RetryFloor, retryAfter(err))
	h.next = max(h.hold, now.Boot+wait)
	e := Event{
		Kind: EventRenewalFailed, Identity: with.Identity, Class: class, Reason: h.lastError,
		Next: now.Wall.Add(h.next - now.Boot).UTC(), Until: with.Leaf().NotAfter.UTC(),
	}
	d.mu.Unlock()
	if class == lifecycle.ClassRejected || class == lifecycle.ClassDenied {
		e.Kind = EventRenewalRefused
	}
	d.emit(e)
}

// lifeOf words the life of a certificate.
func lifeOf(leaf *x509.Certificate) string {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	if life < 2*lifecycle.Day {
		return fmt.Sprintf("%s, until %s", life.Round(time.Minute), stamp(leaf.NotAfter))
	}
	return fmt.Sprintf("%d d, until %s", int(life.Round(lifecycle.Day)/lifecycle.Day), stamp(leaf.NotAfter))
}
