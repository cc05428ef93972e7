package credential

import (
	"cmp"
	"context"
	"strings"
	"time"

	"postern/agent/lifecycle"
	"postern/store"
)

// Observe takes in the outcome of a token call that was made with a
// credential: success proves a new key, any answer of the issuer is contact,
// and a refusal of the identity counts towards Rejected, which needs a second
// one at least 10 min later. A refusal of another credential than the one in
// use is no evidence. It does no I/O; the loop stores what follows.
func (d *Device) Observe(clientID string, with *Credential, err error) {
	d.heard(err)
	h, ok := d.Holder(clientID)
	if !ok || with == nil {
		return
	}
	if err == nil {
		d.accepted(h, with, byToken)
		return
	}
	if class := lifecycle.ClassOf(err); class == lifecycle.ClassRejected {
		d.judge(h, with, byToken, err)
		if d.maySay(h) {
			d.emit(Event{Kind: EventTokenRefused, Identity: with.Identity, Class: class, Reason: words(err)})
		}
	}
}

// sayEvery is how often refused tokens of one identity are mentioned: callers
// decide how often they happen.
const sayEvery = time.Minute

func (d *Device) maySay(h *Holder) bool {
	now := d.clock.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if h.said > 0 && now.Boot-h.said < sayEvery {
		return false
	}
	h.said = max(now.Boot, 1)
	return true
}

// accepted says that a source knows the identity. It takes that source's
// refusal back; a token also proves the key. Rejected is left when whoever
// refused can be asked again (appeal) or a token was issued all the same.
func (d *Device) accepted(h *Holder, with *Credential, by source) {
	now := d.clock.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if with == nil || !same(h.Current(), with) {
		return
	}
	delete(h.refusals, by)
	if by != byToken {
		return
	}
	if h.proven.IsZero() {
		h.proven, h.unsaved = now.Wall, true
	}
	if !h.rejectedAt.IsZero() {
		d.clear(h)
	}
}

// clear takes a confirmed rejection back. mu is held.
func (d *Device) clear(h *Holder) {
	h.rejectedAt, h.rejection, h.refusals, h.unsaved = time.Time{}, "", nil, true
	h.attempts, h.lastError = 0, ""
}

// judge counts a refusal of the identity. The first changes nothing; a second
// by the same source, at least 10 min later, makes it a fact. Under an
// untrusted clock none counts: a wrong clock makes good credentials look bad.
func (d *Device) judge(h *Holder, with *Credential, by source, err error) {
	if lifecycle.ClassOf(err) != lifecycle.ClassRejected {
		return
	}
	now := d.clock.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !now.Trusted || !same(h.Current(), with) || !h.rejectedAt.IsZero() {
		return
	}
	first, ok := h.refusals[by]
	switch {
	case !ok || first > now.Boot:
		if h.refusals == nil {
			h.refusals = make(map[source]time.Duration)
		}
		h.refusals[by] = now.Boot
	case now.Boot-first >= lifecycle.ConfirmRejection:
		h.rejectedAt, h.rejection, h.unsaved = now.Wall, words(err), true
	}
	h.lastError = words(err)
}

// appeal asks again, once an hour, whether a Rejected identity is still
// unknown, since a mistake at the authority can be undone. Everybody who can
// be asked is; the identity is free again when nobody refuses it.
func (d *Device) appeal(ctx context.Context, h *Holder) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	now := d.clock.Now()
	d.mu.Lock()
	h.next = now.Boot + lifecycle.RejectedRetry
	due := !now.Wall.Before(h.renewAt)
	d.mu.Unlock()
	asked, err := d.askAgain(ctx, h)
	if err == nil && (due || !asked) {
		// The renewal itself is what was refused, or the only question there is.
		if d.renew(ctx, h, mute) != nil {
			return
		}
	}
	if err != nil {
		if ctx.Err() == nil {
			d.emit(Event{
				Kind: EventRenewalRefused, Identity: h.Current().Identity, State: lifecycle.Rejected, Class: lifecycle.ClassOf(err),
				Reason: words(err), Next: now.Wall.Add(lifecycle.RejectedRetry), Fix: fixReconnect,
			})
		}
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !h.rejectedAt.IsZero() { // a renewal has cleared it already
		d.clear(h)
	}
}

// askAgain asks the issuer and, for the system identity, the authority's list.
// A denial is an answer to somebody who is known.
func (d *Device) askAgain(ctx context.Context, h *Holder) (asked bool, err error) {
	with := h.Current()
	ask := func(call func() error) {
		if err != nil {
			return
		}
		answer := call()
		d.heard(answer)
		switch lifecycle.ClassOf(answer) {
		case 0, lifecycle.ClassDenied, lifecycle.ClassBadResource:
			asked = true
		default:
			err = answer
		}
	}
	auth, dialled := d.authority()
	if dialled != nil {
		return false, dialled
	}
	d.mu.RLock()
	lists := d.dev.Assignments && !d.beat.noList && h.identity.Kind == SystemAssigned
	d.mu.RUnlock()
	if as, ok := auth.(Assigner); ok && lists {
		ask(func() error { _, err := as.Assignments(ctx, with, ""); return contactOnly(err) })
	}
	if d.o.Probe != nil {
		ask(func() error { return d.o.Probe(ctx, with) })
	}
	return asked, err
}

// Expose says that others could read the files the keys are in: who, how. The
// credentials are not used from now on; only Reconnect cures it. The first
// finding stands, and outlives a file that cannot be read or written at present.
func (d *Device) Expose(how string) error {
	how = strings.TrimSpace(how)
	d.mu.Lock()
	if !d.enrolled && d.damaged == nil || d.dev.Exposed != "" || how == "" {
		d.mu.Unlock()
		return nil
	}
	mark := how + ", found " + stamp(d.clock.Now().Wall)
	d.dev.Exposed, d.exposure = mark, mark // at once: also if it cannot be stored
	d.mu.Unlock()
	d.emit(Event{Kind: EventAccessDrift, Reason: mark, Fix: fixReconnect})
	return d.saveExposure()
}

// saveExposure stores what Expose was told and the file does not say yet.
func (d *Device) saveExposure() error {
	d.mu.RLock()
	mark, readable := d.exposure, d.damaged == nil
	d.mu.RUnlock()
	if mark == "" || !readable {
		return nil // of a file that cannot be read: when it can be again
	}
	err := d.changeDevice("store exposure", func(dev *store.DeviceRecord) { dev.Exposed = cmp.Or(dev.Exposed, mark) })
	if err == nil {
		d.swapExposure("")
	}
	return err
}

// swapExposure replaces what the file does not say yet and returns what it was.
func (d *Device) swapExposure(mark string) (was string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	was, d.exposure = d.exposure, mark
	d.dev.Exposed = cmp.Or(d.dev.Exposed, mark)
	return was
}
