package credential

import (
	"context"
	"errors"
	"time"

	"postern/agent/lifecycle"
	"postern/store"
)

// callTimeout bounds one call to the authority; drivers have tighter ones.
const callTimeout = 60 * time.Second

// beat is the heartbeat of the device. Durations are readings of the boot-time clock.
type beat struct {
	at     time.Duration
	busy   bool
	fails  int // in a row
	etag   string
	noList bool // the authority said that it keeps no assignments
}

// voice is how the device may speak to the authority at this moment.
type voice uint8

const (
	silent    voice = iota
	timeOnly        // the clock is not trusted: only to learn the time
	anonymous       // any sign of life: the system identity cannot speak, another may
	full
)

// voice decides by the states: whoever may not contact the authority does not
// make others do it for him. mu is held.
func (d *Device) voice(now lifecycle.Instant) (voice, *Holder) {
	if d.dev.Exposed != "" || !d.enrolled {
		return silent, nil
	}
	best := silent
	for _, h := range d.holders {
		switch state, _ := d.state(h, now); {
		case state == lifecycle.ClockUntrusted:
			best = max(best, timeOnly)
		case state.MayIssue():
			best = max(best, anonymous)
		}
	}
	sys := d.system()
	if sys == nil || best == silent {
		return best, nil
	}
	switch state, _ := d.state(sys, now); {
	case state.MayIssue():
		return full, sys
	case state == lifecycle.ClockUntrusted:
		return best, sys
	}
	return best, nil
}

// dueBeat returns how to start a heartbeat if one is due. mu is held.
func (d *Device) dueBeat(a *alarm) func() {
	v, _ := d.voice(a.now)
	if d.beat.busy || v == silent || !a.boot(d.beat.at) {
		return nil
	}
	d.beat.busy = true
	return func() {
		if !d.crew.do(func(ctx context.Context) { defer d.beaten(); d.heartbeat(ctx) }, d.beaten) {
			d.beaten()
		}
	}
}

func (d *Device) beaten() {
	d.mu.Lock()
	d.beat.busy = false
	d.mu.Unlock()
	d.nudge()
}

// heartbeat contacts the authority once, in the way that the states allow, and
// plans the next time.
func (d *Device) heartbeat(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	d.mu.RLock()
	v, sys := d.voice(d.clock.Now())
	etag, noList := d.beat.etag, d.beat.noList || !d.dev.Assignments
	d.mu.RUnlock()
	auth, err := d.authority()
	switch {
	case v == silent:
		return
	case err != nil:
	case v == full && !noList && canAssign(auth):
		err = d.ask(ctx, auth, sys, etag)
	default:
		err = d.signOfLife(ctx, auth, sys)
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return // stopped by us: no news
	}
	d.planBeat(err)
}

func canAssign(a Authority) bool { _, ok := a.(Assigner); return ok }

// signOfLife asks for any answer that only the authority could give; sys may be nil.
func (d *Device) signOfLife(ctx context.Context, auth Authority, sys *Holder) error {
	if h, ok := auth.(Heartbeater); ok {
		err := h.Heartbeat(ctx)
		d.heard(err)
		return err
	}
	as, ok := auth.(Assigner)
	if !ok || sys == nil || sys.Current() == nil {
		return nil // tokens and renewals are the only contact there is
	}
	_, err := as.Assignments(ctx, sys.Current(), "")
	err = contactOnly(err)
	d.heard(err) // the list itself counts only under a trusted clock
	return err
}

// ask fetches the assignments and applies them.
func (d *Device) ask(ctx context.Context, auth Authority, sys *Holder, etag string) error {
	with := sys.Current()
	list, err := auth.(Assigner).Assignments(ctx, with, etag) //nolint:forcetypeassert // canAssign
	switch {
	case errors.Is(err, ErrNotModified):
		err = nil
	case errors.Is(err, ErrNoAssignments):
		d.mu.Lock()
		d.beat.noList = true
		d.mu.Unlock()
		return d.signOfLife(ctx, auth, sys)
	case err == nil:
		d.heard(nil)
		d.accepted(sys, with, byAssignment)
		return d.applyAll(ctx, auth, list)
	}
	d.heard(err)
	d.judge(sys, with, byAssignment, err)
	return err
}

// applyAll applies a list and remembers its etag if nothing is left to do.
func (d *Device) applyAll(ctx context.Context, auth Authority, list Assignments) error {
	old := d.outdated(list)
	var err error
	if !old {
		err = d.apply(ctx, auth, list)
	}
	d.mu.Lock()
	d.beat.etag = ""
	if err == nil {
		d.beat.etag = list.ETag
	}
	save := err == nil && !old && d.dev.ETag != list.ETag
	d.mu.Unlock()
	if !save {
		return err
	}
	return d.changeDevice("store etag", func(dev *store.DeviceRecord) { dev.ETag = list.ETag })
}

// planBeat sets the time of the next heartbeat after one with this outcome.
func (d *Device) planBeat(err error) {
	now := d.clock.Now()
	d.mu.Lock()
	if err == nil {
		d.beat.fails = 0
		d.beat.at = now.Boot + d.nextBeat()
		d.mu.Unlock()
		return
	}
	d.beat.fails++
	// The last contact counts for OfflineAfter; there is no use in a longer
	// wait, and a link that is back should be noticed.
	wait := min(lifecycle.Backoff(d.beat.fails, 30*lifecycle.Day, d.chance()), lifecycle.DefaultOfflineAfter)
	if lifecycle.ClassOf(err) == lifecycle.ClassRejected {
		wait = max(wait, lifecycle.ConfirmRejection)
	}
	d.beat.at = now.Boot + max(wait, retryAfter(err))
	e := Event{
		Kind: EventContactFailed, Class: lifecycle.ClassOf(err), Reason: words(err),
		Next: now.Wall.Add(d.beat.at - now.Boot).UTC(),
	}
	if e.Class == lifecycle.ClassTransient {
		e.Fix = fixReach
	}
	d.mu.Unlock()
	if !errors.Is(err, errPartly) { // said already, identity by identity
		d.emit(e)
	}
}

// nextBeat is the time to the heartbeat after one that was answered: where a
// contact counts for less than usual, it comes before that one is over, or a
// device in order would be Offline between two of them.
func (d *Device) nextBeat() time.Duration {
	wait := lifecycle.Heartbeat(d.chance())
	if d.o.OfflineAfter > 0 {
		wait = min(wait, d.o.OfflineAfter/2)
	}
	return wait
}

func retryAfter(err error) time.Duration {
	var e *lifecycle.Error
	if errors.As(err, &e) {
		return min(max(e.RetryAfter, 0), 6*time.Hour)
	}
	return 0
}

// answered reports whether an answer came that only the authority could give.
func answered(err error) bool {
	var e *lifecycle.Error
	return err == nil || errors.As(err, &e) && e.Answered
}

// heard records the outcome of a call. When contact is regained, renewals that
// wait for another try get it at once, spread over a few seconds.
func (d *Device) heard(err error) {
	now := d.clock.Now()
	var outage time.Duration
	if err == nil {
		outage = d.contact.Seen(now)
	} else {
		outage = d.contact.Failed(now, err)
	}
	d.nudge()
	if outage == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	soon := func(next, hold time.Duration) time.Duration {
		return min(next, max(hold, now.Boot+lifecycle.Spread(outage, d.chance())))
	}
	for _, h := range d.holders {
		if h.rejectedAt.IsZero() {
			h.next = soon(h.next, h.hold)
		}
	}
	if !d.beat.busy {
		d.beat.at = soon(d.beat.at, 0)
	}
}

// authority returns the driver, made when it is first needed.
func (d *Device) authority() (Authority, error) {
	d.mu.RLock()
	auth, dev := d.auth, d.dev
	d.mu.RUnlock()
	if auth != nil {
		return auth, nil
	}
	auth, err := d.o.Dial(dev)
	if err != nil {
		return nil, &lifecycle.Error{Class: lifecycle.ClassTransient, Op: "dial " + dev.AuthorityURL, Err: err}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.auth == nil {
		d.auth = auth
	}
	return d.auth, nil
}

// Redial has the driver made anew when it is next needed: whom it believes may
// have changed.
func (d *Device) Redial() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.auth = nil
}

// contactOnly reduces the answers of Assignments that are no failure.
func contactOnly(err error) error {
	if errors.Is(err, ErrNotModified) || errors.Is(err, ErrNoAssignments) {
		return nil
	}
	return err
}
