package credential

import (
	"context"
	"errors"
	"time"

	"postern/agent/lifecycle"
	"postern/store"
)

const (
	keepPrevious  = lifecycle.Day // an old key is kept at least so long
	retireRetry   = time.Hour
	retireWarning = lifecycle.Day // how long a failure to withdraw stays unmentioned in Warnings
	saveRetry     = 5 * time.Minute
)

// needsKeeping reports whether h has house-keeping to do now: facts to store,
// an old certificate to withdraw, an old key to destroy. mu is held.
func (d *Device) needsKeeping(h *Holder, state lifecycle.State, a *alarm) bool {
	if d.damaged != nil || !a.boot(h.keepAt) {
		return false
	}
	return h.unsaved || d.mayRetire(h, state, a.now) || d.mayDrop(h, a)
}

// mayRetire: the new key has proven itself and the old one is not withdrawn
// yet. keep stores the proof first. mu is held.
func (d *Device) mayRetire(h *Holder, state lifecycle.State, now lifecycle.Instant) bool {
	return h.previous != nil && !h.retired && !h.proven.IsZero() &&
		state.MayIssue() && now.Wall.Before(h.previous.Leaf().NotAfter)
}

// mayDrop: the old key is of no more use. mu is held.
func (d *Device) mayDrop(h *Holder, a *alarm) bool {
	if h.previous == nil || !a.now.Trusted {
		return false
	}
	if c := h.Current(); c == nil || !a.wall(c.Leaf().NotBefore.Add(keepPrevious)) {
		return false
	}
	return a.wall(h.previous.Leaf().NotAfter) || h.retired
}

// keep does what needsKeeping found, one thing at a time: the proof stands in
// the file and its backup copy before the old certificate is withdrawn.
func (d *Device) keep(ctx context.Context, h *Holder) {
	now := d.clock.Now()
	d.mu.RLock()
	state, _ := d.state(h, now)
	unsaved, retire, drop := h.unsaved, d.mayRetire(h, state, now), d.mayDrop(h, &alarm{now: now})
	d.mu.RUnlock()
	switch {
	case unsaved:
		d.save(h)
	case retire:
		d.retire(ctx, h)
	case drop:
		err := d.change(h.id, func(rec *store.IdentityRecord) { rec.Previous = nil })
		d.kept(h, err)
	}
}

// save stores what the loop learnt of h: that its key has proven itself, that
// it was rejected or no longer is.
func (d *Device) save(h *Holder) {
	d.mu.RLock()
	current, proven, at, said := h.Current(), h.proven, h.rejectedAt, h.rejection
	d.mu.RUnlock()
	err := d.change(h.id, func(rec *store.IdentityRecord) {
		rec.RejectedAt, rec.Rejection, rec.FirstRefusal = at, said, time.Time{}
		if !at.IsZero() {
			rec.FirstRefusal = at.Add(-lifecycle.ConfirmRejection)
		}
		if rec.Current != nil && current != nil && string(rec.Current.Chain[0]) == string(current.Leaf().Raw) {
			rec.Current.Proven = proven
		}
	})
	if err == nil {
		d.mu.Lock()
		if h.proven.Equal(proven) && h.rejectedAt.Equal(at) {
			h.unsaved = false
		}
		d.mu.Unlock()
	}
	d.kept(h, err)
}

// kept plans another try after a failure of the store.
func (d *Device) kept(h *Holder, err error) {
	if err == nil || errors.Is(err, store.ErrNotFound) { // the identity is gone: so is the work
		return
	}
	d.mu.Lock()
	h.keepAt = d.clock.Now().Boot + saveRetry
	d.mu.Unlock()
	_ = d.storeFailed(h, "store facts", err) // logged there
}

// retire withdraws the old certificate at the authority. A failure is only a
// warning: it is tried again every hour until the certificate ends by itself.
func (d *Device) retire(ctx context.Context, h *Holder) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	d.mu.RLock()
	old, proven := h.previous, h.proven
	d.mu.RUnlock()
	auth, err := d.authority()
	if err == nil {
		err = gone(auth.Retire(ctx, old))
		d.heard(err)
	}
	now := d.clock.Now()
	subject := "retire " + h.id
	if err == nil {
		d.note(subject, "")
		d.kept(h, d.change(h.id, func(rec *store.IdentityRecord) {
			if rec.Previous != nil {
				rec.Previous.Retired = true
			}
		}))
		d.emit(Event{Kind: EventRetired, Identity: old.Identity, Reason: "serial " + old.Leaf().SerialNumber.String()})
		return
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	d.mu.Lock()
	h.keepAt = now.Boot + max(retireRetry, retryAfter(err))
	d.mu.Unlock()
	text := "the old certificate of " + label(old.Identity) + ", serial " + old.Leaf().SerialNumber.String() +
		", could not be withdrawn and ends " + stamp(old.Leaf().NotAfter) + ": " + words(err)
	if now.Wall.Sub(proven) >= retireWarning {
		d.note(subject, text)
	}
	d.emit(Event{
		Kind: EventRetireFailed, Identity: old.Identity, Class: lifecycle.ClassOf(err), Reason: words(err),
		Next: now.Wall.Add(retireRetry), Until: old.Leaf().NotAfter.UTC(),
	})
}

// gone takes the refusal of a credential that was to be withdrawn for what it
// is: the authority does not know it any more.
func gone(err error) error {
	if lifecycle.ClassOf(err) == lifecycle.ClassRejected {
		return nil
	}
	return err
}

// check is the look at the identity file at every tick.
type check struct {
	at   time.Duration // boot-time clock
	busy bool
}

// dueCheck returns how to look whether the files are still what they were, if
// that is due. mu is held.
func (d *Device) dueCheck(a *alarm) func() {
	if d.check.busy || !a.boot(d.check.at) {
		return nil
	}
	d.check = check{at: a.now.Boot + lifecycle.UntilTick(a.now.Boot, d.tick), busy: true}
	done := func() {
		d.mu.Lock()
		d.check.busy = false
		d.mu.Unlock()
	}
	return func() {
		if !d.crew.do(func(ctx context.Context) { defer done(); d.checkFile(ctx) }, done) {
			done()
		}
	}
}

// checkFile has the store put right what changed outside, and takes in an
// identity that can be read again, or no longer.
func (d *Device) checkFile(ctx context.Context) {
	err := d.file.Check(ctx)
	if ctx.Err() != nil {
		return // stopped by us: no news
	}
	d.note("store", words(err))
	d.mu.RLock()
	before := d.damaged != nil
	d.mu.RUnlock()
	if now := d.file.Damaged() != nil; now != before {
		d.write.Lock()
		d.reload()
		d.write.Unlock()
		d.nudge()
	}
	if err == nil {
		_ = d.saveExposure() // logged there, and tried again
	}
}

// saveFloor stores the clock floor if it moved by an hour, or down. Every
// other commit carries it along; a device that is idle writes nothing.
func (d *Device) saveFloor() {
	floor := d.clock.Floor()
	d.mu.RLock()
	moved := floor.Sub(d.dev.Floor)
	skip := !d.enrolled || d.damaged != nil || moved >= 0 && moved < floorStep
	d.mu.RUnlock()
	if skip {
		return
	}
	if err := d.commit(func(*store.IdentityTx) error { return nil }); err != nil {
		d.emit(Event{Kind: EventStoreFailed, Reason: words(err)})
	}
}
