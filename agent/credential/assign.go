package credential

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"postern/agent/lifecycle"
	"postern/store"
)

// errPartly: the list was applied but for enrolments that did not succeed; ask
// for it again.
var errPartly = errors.New("not all assigned identities could be enrolled")

const maxClientID = 128

// difference is what a list changes here (firmware-notes/authorities.md).
type difference struct {
	facts  []Identity   // listed, and held or to be held
	enroll []Assignment // with a one-time secret: a new key and certificate
	drop   []Identity   // held and no longer listed
	notes  []string     // what was refused, for Warnings
	write  bool         // something has to be stored
}

// apply makes the device fit the list. Nothing is ever removed for a failure,
// and nothing at all happens for a list that cannot be this device's.
func (d *Device) apply(ctx context.Context, auth Authority, list Assignments) error {
	diff, err := d.compare(list)
	if d.note("assignments", strings.Join(diff.notes, "; ")) && len(diff.notes) > 0 {
		d.emit(Event{Kind: EventAssignmentFailed, Reason: words(errors.New(strings.Join(diff.notes, "; ")))})
	}
	if err != nil {
		return err
	}
	if diff.write {
		if err := d.commit(diff.store(list)); err != nil {
			return d.storeFailed(nil, "store assignments", err)
		}
	}
	for _, id := range diff.drop {
		d.emit(Event{Kind: EventUnassigned, Identity: id, Reason: "no longer assigned to this device: its key is destroyed"})
	}
	for _, a := range diff.enroll {
		if e := d.enlist(ctx, auth, a); e != nil {
			err = errPartly
		}
	}
	return err
}

// outdated reports, and says once, that the list is older than one applied
// before: the authority was restored from an old copy, and is not followed.
func (d *Device) outdated(list Assignments) bool {
	d.mu.RLock()
	newest := d.dev.Generation
	d.mu.RUnlock()
	text := ""
	if list.Generation < newest {
		text = fmt.Sprintf("the authority's list of identities is of generation %d, and %d was applied here: it was restored from an old copy; its list is ignored", list.Generation, newest)
	}
	if d.note("generation", text) && text != "" {
		d.emit(Event{Kind: EventAssignmentFailed, Reason: text, Fix: fixAudit})
	}
	return text != ""
}

// compare finds out what the list changes. The error says that it is not a
// list for this device.
func (d *Device) compare(list Assignments) (difference, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	entries, notes := d.sift(list)
	diff := difference{notes: notes, write: list.Generation != d.dev.Generation || !d.dev.Assignments}
	listed := make(map[string]bool)
	for _, a := range entries {
		listed[a.Identity.ClientID] = true
	}
	if sys := d.system(); sys == nil || !listed[sys.id] {
		// Whoever asked is always in the answer. Without this, an empty or
		// foreign list would destroy every user-assigned key.
		notes = append(notes, "the authority's list of identities does not name this device's own; it is ignored")
		return difference{notes: notes}, &lifecycle.Error{
			Class: lifecycle.ClassTransient, Answered: true, Op: "assignments", Reason: "the list does not name the identity that asked",
		}
	}
	for id, h := range d.holders {
		if h.identity.Kind == UserAssigned && !h.fixed && !listed[id] {
			diff.drop, diff.write = append(diff.drop, h.identity), true
		}
	}
	for _, a := range entries {
		h := d.holders[a.Identity.ClientID]
		if h == nil || merge(h.identity, a.Identity) != h.identity {
			diff.write = true
		}
		diff.facts = append(diff.facts, a.Identity)
		if a.Enroll.Empty() && h != nil && h.Current() == nil {
			// The answer to the last try was lost. The authority may count the
			// secret as spent, but know the same key again (ID5).
			a.Enroll = h.offer
		}
		if !a.Enroll.Empty() && a.Identity.Kind == UserAssigned {
			diff.enroll = append(diff.enroll, a)
		}
	}
	return diff, nil
}

// sift leaves out what cannot be taken, and says what that was: entries that
// are not fit, a second one of the same id, more than there is room for. mu is held.
func (d *Device) sift(list Assignments) (entries []Assignment, notes []string) {
	seen := make(map[string]bool)
	for _, a := range list.Identities {
		a.Identity = lower(a.Identity)
		if why := d.unfit(a.Identity); why != "" {
			notes = append(notes, why+"; it is ignored")
		} else if !seen[a.Identity.ClientID] {
			seen[a.Identity.ClientID] = true
			entries = append(entries, a)
		}
	}
	room := maxIdentities
	for id, h := range d.holders {
		if seen[id] || h.fixed || h.identity.Kind == SystemAssigned {
			room--
		}
	}
	entries = slices.DeleteFunc(entries, func(a Assignment) bool {
		if d.holders[a.Identity.ClientID] != nil {
			return false
		}
		if room--; room < 0 {
			notes = append(notes, fmt.Sprintf("%s is refused: a device has at most %d identities", label(a.Identity), maxIdentities))
		}
		return room < 0
	})
	return entries, notes
}

// unfit says why an entry cannot be taken; empty if it can. mu is held.
func (d *Device) unfit(id Identity) string {
	h := d.holders[id.ClientID]
	switch {
	case !validID(id.ClientID):
		return fmt.Sprintf("an assigned identity has the client id %.40q", id.ClientID)
	case id.Kind != SystemAssigned && id.Kind != UserAssigned:
		return fmt.Sprintf("%s is of the unknown kind %.40q", id.ClientID, id.Kind)
	case h != nil && h.identity.Kind != id.Kind:
		return fmt.Sprintf("%s is said to be %s, here it is %s", id.ClientID, id.Kind, h.identity.Kind)
	case h == nil && id.Kind == SystemAssigned:
		return fmt.Sprintf("the list names another system-assigned identity, %s", id.ClientID)
	}
	return ""
}

// store writes the facts of the list in one commit.
func (diff difference) store(list Assignments) func(*store.IdentityTx) error {
	return func(tx *store.IdentityTx) error {
		for _, id := range diff.drop {
			if err := tx.DeleteIdentity(id.ClientID); err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
		}
		for _, id := range diff.facts {
			rec, err := tx.Identity(id.ClientID)
			if errors.Is(err, store.ErrNotFound) {
				rec, err = recordOf(id), nil
			}
			if err != nil {
				return err
			}
			if err := tx.PutIdentity(withFacts(rec, merge(identityOf(rec), id))); err != nil {
				return err
			}
		}
		dev, err := tx.Device()
		if err != nil {
			return err
		}
		dev.Generation, dev.Assignments, dev.ETag = list.Generation, true, ""
		if len(diff.enroll) == 0 {
			dev.ETag = list.ETag
		}
		return tx.PutDevice(dev)
	}
}

// enlist gets the certificate of an assigned identity with its one-time secret.
func (d *Device) enlist(ctx context.Context, auth Authority, a Assignment) error {
	h, ok := d.Holder(a.Identity.ClientID)
	if !ok || !d.claim(h) {
		return errPartly // its renewal runs just now
	}
	defer d.idle(h)
	err := d.enrollAssigned(ctx, auth, h, a)
	d.mu.Lock()
	h.lastError, h.offer = words(err), store.Secret{}
	if lifecycle.ClassOf(err) == lifecycle.ClassTransient && !answered(err) {
		h.offer = a.Enroll
	}
	d.mu.Unlock()
	if err == nil {
		leaf := h.Current().Leaf()
		d.emit(Event{Kind: EventAssigned, Identity: a.Identity, Until: leaf.NotAfter.UTC(), Reason: lifeOf(leaf)})
		return nil
	}
	d.emit(Event{Kind: EventAssignmentFailed, Identity: a.Identity, Class: lifecycle.ClassOf(err), Reason: words(err)})
	return err
}

func (d *Device) enrollAssigned(ctx context.Context, auth Authority, h *Holder, a Assignment) error {
	pending, err := d.pendingKey(h, mute)
	if err != nil {
		return err
	}
	signer, err := signerOf(pending)
	if err != nil {
		return err
	}
	chain, err := d.trade(ctx, auth, signer, a.Enroll)
	if err != nil {
		return err
	}
	if err := d.verify(chain, signer.Public(), nil); err != nil {
		return err
	}
	if cn := chain[0].Subject.CommonName; !strings.EqualFold(cn, h.id) {
		return &lifecycle.Error{
			Class: lifecycle.ClassTransient, Answered: true, Op: "verify",
			Err: fmt.Errorf("%w: it is for %.80q, the assigned identity is %s", ErrCertificate, cn, h.id),
		}
	}
	pending.Chain = rawChain(chain)
	err = d.change(h.id, func(rec *store.IdentityRecord) {
		// The authority has withdrawn whatever this device had for it before.
		*rec = withFacts(store.IdentityRecord{Current: &pending}, identityOf(*rec))
	})
	if err != nil {
		return d.storeFailed(h, "store certificate", err)
	}
	return nil
}

// claim marks h as worked upon; false if it is already.
func (d *Device) claim(h *Holder) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if h.busy {
		return false
	}
	h.busy = true
	return true
}

func lower(id Identity) Identity { return identityOf(recordOf(id)) }

// merge takes over the authority's facts where it states them.
func merge(have, said Identity) Identity {
	for _, f := range []struct{ into, from *string }{
		{&have.Name, &said.Name}, {&have.ObjectID, &said.ObjectID}, {&have.TenantID, &said.TenantID}, {&have.ResourceID, &said.ResourceID},
	} {
		if *f.from != "" {
			*f.into = *f.from
		}
	}
	return have
}

// withFacts returns rec with the identity's facts and its own keys.
func withFacts(rec store.IdentityRecord, id Identity) store.IdentityRecord {
	facts := recordOf(id)
	rec.Kind, rec.Name, rec.ClientID = facts.Kind, facts.Name, facts.ClientID
	rec.ObjectID, rec.TenantID, rec.ResourceID = facts.ObjectID, facts.TenantID, facts.ResourceID
	return rec
}

// validID says whether a client id may be a key: printable, short, no space.
// The cache separates it from the resource by a NUL.
func validID(id string) bool {
	return id != "" && len(id) <= maxClientID && strings.IndexFunc(id, func(r rune) bool { return r <= ' ' || r >= 0x7f }) < 0
}
