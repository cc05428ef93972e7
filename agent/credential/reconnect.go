package credential

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"postern/agent/lifecycle"
	"postern/store"
)

// reconnect finds out whose certificate is to be made anew, and where.
func (d *Device) reconnect(ctx context.Context, o Onboarding) (string, error) {
	dev, before, err := d.reconnectable(o)
	if err != nil {
		return "", err
	}
	if o.AuthorityURL != "" {
		dev.AuthorityURL = o.AuthorityURL
	}
	if o.RootPEM != "" { // the claim was made under a new root
		dev.RootPEM, dev.RootSHA256 = o.RootPEM, strings.ToLower(o.RootSHA256)
	}
	return d.admit(ctx, o, dev, before, d.exposedUsers(before))
}

// reconnectable returns the records to start from; before is nil if they
// cannot be read.
func (d *Device) reconnectable(o Onboarding) (dev store.DeviceRecord, before *store.IdentityRecord, err error) {
	d.mu.RLock()
	dev = d.dev
	damaged, enrolled, moved := d.damaged, d.enrolled, d.moved
	h, sys := d.system(), d.system()
	if want := strings.ToLower(o.Identity.ClientID); want != "" {
		h = d.holders[want]
	} else if h == nil && len(d.holders) == 1 {
		for _, only := range d.holders {
			h = only
		}
	}
	d.mu.RUnlock()
	switch {
	case damaged != nil && !errors.Is(damaged, store.ErrDamaged) && !errors.Is(damaged, store.ErrNotFound):
		// A newer release's file, or one that cannot be reached at present, is
		// not given up by mistake.
		return dev, nil, stateProblem("reconnect", Standing{State: lifecycle.Damaged, Reason: words(damaged), Fix: store.FixOf(damaged)})
	case damaged != nil:
		return dev, nil, nil //nolint:nilerr // what is damaged is being replaced
	case !enrolled:
		return dev, nil, stateProblem("reconnect", Standing{State: lifecycle.Unenrolled, Fix: fixConnect})
	case moved:
		return dev, nil, stateProblem("reconnect", Standing{State: lifecycle.Moved, Reason: "the card holds another device's identity", Fix: fixAdopt})
	case dev.Exposed != "" && h != sys && sys != nil:
		// The keys stand in one file: the device's own comes first, and the
		// others follow from it.
		return dev, nil, stateProblem("reconnect", d.standingOf(sys))
	case h == nil:
		return dev, nil, &Problem{
			ID: "unknown-identity", Op: "reconnect", Fix: fixIdentities,
			Err: fmt.Errorf("%w: say which identity is meant", ErrUnknownIdentity),
		}
	}
	records, err := d.file.Identities()
	if err != nil {
		return dev, nil, err
	}
	for _, rec := range records {
		if strings.EqualFold(rec.ClientID, h.id) {
			return dev, &rec, nil
		}
	}
	rec := recordOf(h.identity) // from the configuration, never enrolled
	return dev, &rec, nil
}

// exposedUsers are the other credentials whose keys stood in the same file
// that others could read.
func (d *Device) exposedUsers(before *store.IdentityRecord) []*Credential {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.dev.Exposed == "" || before == nil {
		return nil
	}
	var all []*Credential
	for id, h := range d.holders {
		if c := h.Current(); c != nil && !strings.EqualFold(id, before.ClientID) {
			all = append(all, c)
		}
	}
	return all
}

// withdrawDropped withdraws certificates whose keys are gone from the file. It
// cannot be repeated, so a failure is said.
func (d *Device) withdrawDropped(ctx context.Context, auth Authority, drop []*Credential, o Onboarding) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for _, c := range drop {
		err := gone(auth.Retire(ctx, c))
		d.heard(err)
		if err == nil {
			d.emit(Event{Kind: EventRetired, Identity: c.Identity, Reason: "its key was exposed; serial " + c.Leaf().SerialNumber.String()})
			continue
		}
		text := fmt.Sprintf("the certificate of %s, serial %s, whose key was exposed, could not be withdrawn and ends %s",
			label(c.Identity), c.Leaf().SerialNumber, stamp(c.Leaf().NotAfter))
		d.note("exposed "+c.Identity.ClientID, text)
		d.emit(Event{Kind: EventRetireFailed, Identity: c.Identity, Class: lifecycle.ClassOf(err), Reason: words(fmt.Errorf("%s: %w", text, err))})
		o.step("%s", text)
	}
}

// problem makes a Problem of whatever went wrong.
func (d *Device) problem(op string, err error) *Problem {
	if p, ok := asProblem(err); ok {
		p.Op = op
		return p
	}
	p := &Problem{ID: op + "-failed", Op: op, Err: err, Fix: fixStatus}
	switch lifecycle.ClassOf(err) {
	case lifecycle.ClassDenied, lifecycle.ClassRejected:
		p.ID = "refused"
		if op != "renew" {
			p.ID, p.Fix = "claim-refused", fixClaim
			if op == "reconnect" {
				p.Fix = fixReclaim
			}
		}
	case lifecycle.ClassClock:
		p.ID, p.State, p.Fix = "clock", lifecycle.ClockUntrusted, fixClock
	case lifecycle.ClassTransient:
		p.ID, p.State, p.Fix = "authority-unreachable", lifecycle.Offline, fixReach
		if isCertificate(err) {
			p.ID, p.State, p.Fix = "certificate-refused", 0, fixAudit
		}
	}
	return p
}
