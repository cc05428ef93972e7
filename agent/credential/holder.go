package credential

import (
	"bytes"
	"strings"
	"sync/atomic"
	"time"

	"postern/agent/lifecycle"
	"postern/store"
)

// Holder is one identity of the device: the credential in use and what is
// known about it. Its renewals swap the credential; who asked before keeps a
// credential that stays whole.
type Holder struct {
	id      string // client id, lower case
	current atomic.Pointer[Credential]

	// What follows is guarded by Device.mu.

	// Facts, as they stand in the file (those marked * may be ahead of it).
	identity   Identity
	fixed      bool   // given by configuration
	damaged    string // why the key or certificate cannot be used
	previous   *Credential
	retired    bool      // previous has been withdrawn at the authority
	pending    bool      // a key is stored that waits for its certificate
	proven     time.Time // * when current earned its first token
	rejectedAt time.Time // *
	rejection  string    // * the authority's words
	renewAt    time.Time

	// Since this process started. Durations are readings of the boot-time clock.
	entered   lifecycle.State // the state that the loop has acted upon
	warned    int             // days of the last warning
	busy      bool            // something works on it
	unsaved   bool            // the facts marked * are ahead of the file
	attempts  int             // failed ones in a row
	lastError string
	next      time.Duration // no attempt before
	hold      time.Duration // and not even when contact is regained
	keepAt    time.Duration // no house-keeping before
	refusals  map[source]time.Duration
	said      time.Duration // the last refusal of a token was mentioned
	offer     store.Secret  // one-time secret whose answer did not arrive
}

// source says who refused an identity. A refusal is confirmed, and taken back,
// by the same source only: a token issuer that knows the identity no more is
// not overruled by an authority that still answers heartbeats.
type source string

const (
	byRenewal    source = "renewal"
	byAssignment source = "assignments"
	byToken      source = "token"
)

// Current is the credential in use, nil if there is none. It does not say
// whether it may be used now: Standing does.
func (h *Holder) Current() *Credential { return h.current.Load() }

// take makes h show the record. Device.mu is held.
func (h *Holder) take(rec store.IdentityRecord, seed string) {
	h.identity, h.damaged = identityOf(rec), ""
	h.pending = rec.Pending != nil
	before, now := h.Current(), h.read(rec)
	if !same(before, now) {
		h.unsaved, h.attempts, h.lastError, h.next, h.hold, h.keepAt = false, 0, "", 0, 0, 0
		h.refusals = nil
		h.current.Store(now)
	} else if now != nil && before.Identity != now.Identity {
		h.current.Store(now)
	}
	if !h.unsaved {
		h.rejectedAt, h.rejection, h.proven = rec.RejectedAt, rec.Rejection, time.Time{}
		if rec.Current != nil {
			h.proven = rec.Current.Proven
		}
	}
	h.renewAt = time.Time{}
	if now != nil {
		h.renewAt = lifecycle.RenewAt(now.Leaf().NotBefore, now.Leaf().NotAfter, seed+" "+h.id)
	}
}

func same(a, b *Credential) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Thumbprint() == b.Thumbprint()
}

// read turns the record's keys into credentials; what cannot be read is damage,
// except an old key, which is only a fallback.
func (h *Holder) read(rec store.IdentityRecord) *Credential {
	before := h.previous
	h.previous, h.retired = nil, false
	if rec.Previous != nil {
		if old, err := h.credential(before, *rec.Previous); err == nil {
			h.previous, h.retired = old, rec.Previous.Retired
		}
	}
	if rec.Current == nil {
		return nil
	}
	c, err := h.credential(h.Current(), *rec.Current)
	if err != nil {
		h.damaged = words(err)
		return nil
	}
	return c
}

// credential reads a key record, or takes have if that is what it holds:
// reading takes a fraction of a millisecond each, under Device.mu.
func (h *Holder) credential(have *Credential, k store.KeyRecord) (*Credential, error) {
	if have == nil || len(k.Chain) == 0 || !bytes.Equal(have.Leaf().Raw, k.Chain[0]) {
		return credentialOf(h.identity, k)
	}
	if have.Identity == h.identity {
		return have, nil
	}
	renamed := *have
	renamed.Identity = h.identity
	return &renamed, nil
}

func identityOf(rec store.IdentityRecord) Identity {
	return Identity{
		Kind: Kind(rec.Kind), Name: rec.Name, ClientID: strings.ToLower(rec.ClientID),
		ObjectID: strings.ToLower(rec.ObjectID), TenantID: strings.ToLower(rec.TenantID), ResourceID: rec.ResourceID,
	}
}

func recordOf(id Identity) store.IdentityRecord {
	return store.IdentityRecord{
		Kind: string(id.Kind), Name: id.Name, ClientID: strings.ToLower(id.ClientID),
		ObjectID: strings.ToLower(id.ObjectID), TenantID: strings.ToLower(id.TenantID), ResourceID: id.ResourceID,
	}
}

// Holder returns the holder of an identity, for callers that need the
// credential of the moment at each handshake. False if there is no such identity.
func (d *Device) Holder(clientID string) (*Holder, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	h, ok := d.holders[strings.ToLower(clientID)]
	return h, ok
}
