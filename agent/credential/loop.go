package credential

import (
	"context"
	"fmt"
	"time"

	"postern/agent/lifecycle"
)

// Times of the loop.
const (
	maxTick   = lifecycle.Tick // no sleep is longer
	shortest  = 100 * time.Millisecond
	floorStep = time.Hour // how far the floor moves before it is worth a commit of its own
)

// Run is the loop: it derives the states at least every 30 s and whenever
// something happened, acts when one changed, and starts the work that is due.
// It returns nil when ctx is done, after the facts that only memory had are
// stored. One Run at a time.
func (d *Device) Run(ctx context.Context) error {
	shut := d.crew.open(ctx)
	d.plan()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			shut()
			d.flush()
			return nil
		case <-timer.C:
		case <-d.wake:
		}
		timer.Reset(d.turn())
	}
}

// plan spreads the first work after a start, as after an outage: a region
// whose power comes back must not call as one.
func (d *Device) plan() {
	now := d.clock.Now()
	var silent time.Duration
	if last := d.contact.LastContact(now); !last.IsZero() {
		silent = now.Wall.Sub(last)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.beat.at = now.Boot + lifecycle.Spread(silent, d.chance())
	for _, h := range d.holders {
		h.next = now.Boot + lifecycle.Spread(silent, d.chance())
	}
}

// turn is one round; the result is how long to sleep.
func (d *Device) turn() time.Duration {
	now := d.clock.Now()
	events, changed := d.enter(now)
	for _, e := range events {
		d.emit(e)
	}
	if changed {
		d.crew.do(func(context.Context) { d.saveFloor() }, func() {})
	}
	return d.start(now)
}

// enter compares each identity's state with the one acted upon last. Only a
// difference has effects. changed says that a state gave way to another, which
// is worth storing the floor.
func (d *Device) enter(now lifecycle.Instant) (events []Event, changed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, h := range d.holders {
		st := d.standing(h, now)
		if st.State == lifecycle.Unenrolled && (d.beat.busy || d.op != nil) {
			continue // it is just being enrolled
		}
		if st.State != h.entered {
			events = append(events, Event{
				Kind: transition(h.entered, st.State), Identity: st.Identity, State: st.State, Previous: h.entered,
				Until: st.Until, Reason: st.Reason, Fix: st.Fix,
			})
			changed = changed || h.entered != 0
			d.entering(h, st.State, now)
		}
		if days := h.warning(st, now); days != h.warned {
			if h.warned = days; days > 0 {
				events = append(events, Event{
					Kind: EventExpiring, Identity: st.Identity, State: st.State, Until: st.NotAfter, Days: days,
					Reason: expiring(st, days), Fix: fixRenew,
				})
			}
			d.warn(h, st, days)
		}
	}
	return events, changed
}

// entering is what a new state does to h. mu is held.
func (d *Device) entering(h *Holder, s lifecycle.State, now lifecycle.Instant) {
	if s == lifecycle.Rejected && h.entered != 0 {
		h.next = now.Boot + lifecycle.RejectedRetry
	}
	h.entered = s
}

// warning is how many days are left according to the last mark passed, 0 for
// none. An untrusted clock warns of nothing.
func (h *Holder) warning(st Standing, now lifecycle.Instant) int {
	if !now.Trusted || st.NotAfter.IsZero() {
		return h.warned
	}
	days, _ := lifecycle.Warning(st.NotBefore, st.NotAfter, now.Wall)
	return days
}

// warn keeps the note for status. mu is held.
func (d *Device) warn(h *Holder, st Standing, days int) {
	subject := "expiring " + h.id
	if days == 0 {
		delete(d.notes, subject)
		return
	}
	d.notes[subject] = expiring(st, days)
}

func expiring(st Standing, days int) string {
	text := fmt.Sprintf("the certificate of %s ends within %d d, on %s, and has not been renewed", label(st.Identity), days, stamp(st.NotAfter))
	if st.LastError != "" {
		text += ": " + st.LastError
	}
	return text
}

// label names an identity to a person.
func label(id Identity) string {
	if id.Name == "" || id.Name == id.ClientID {
		return id.ClientID
	}
	return id.Name + " (" + id.ClientID + ")"
}

// transition names the event of a change between two states.
func transition(from, to lifecycle.State) string {
	switch {
	case to == lifecycle.Expired:
		return EventExpired
	case to == lifecycle.Moved:
		return EventMoved
	case to == lifecycle.ClockUntrusted:
		return EventClockUntrusted
	case from == lifecycle.ClockUntrusted:
		return EventClockTrusted
	case from == lifecycle.Connected && to == lifecycle.Offline:
		return EventAuthorityLost
	case from == lifecycle.Offline && to == lifecycle.Connected:
		return EventAuthorityRegained
	}
	return EventStateChanged
}

// start begins what is due at now and says how long to sleep.
func (d *Device) start(now lifecycle.Instant) time.Duration {
	var due []func()
	d.mu.Lock()
	alarm := alarm{now: now, wait: lifecycle.UntilTick(now.Boot, d.tick)}
	if d.op == nil {
		for _, job := range []func(){d.dueCheck(&alarm), d.dueBeat(&alarm)} {
			if job != nil {
				due = append(due, job)
			}
		}
		for _, h := range d.holders {
			if job := d.dueWork(h, &alarm); job != nil {
				due = append(due, job)
			}
		}
	}
	d.mu.Unlock()
	for _, job := range due {
		job()
	}
	return max(alarm.wait, shortest)
}

// dueWork finds the one thing that h needs now and returns how to start it.
// mu is held.
func (d *Device) dueWork(h *Holder, a *alarm) func() {
	state, until := d.state(h, a.now)
	a.wall(until)
	if h.busy {
		return nil
	}
	var work func(ctx context.Context, h *Holder)
	switch {
	case d.needsKeeping(h, state, a):
		work = d.keep
	case d.dev.Exposed != "" || h.Current() == nil:
	case state == lifecycle.Rejected:
		if a.boot(h.next) {
			work = d.appeal
		}
	case state.MayIssue():
		if a.wall(h.renewAt) && a.boot(h.next) {
			work = func(ctx context.Context, h *Holder) { _ = d.renew(ctx, h, mute) } // logged, and a fact
		}
	}
	if work == nil {
		return nil
	}
	h.busy = true
	return func() {
		if !d.crew.do(func(ctx context.Context) { defer d.idle(h); work(ctx, h) }, func() { d.idle(h) }) {
			d.idle(h)
		}
	}
}

func mute(string) {}

// idle ends work on h.
func (d *Device) idle(h *Holder) {
	d.mu.Lock()
	h.busy = false
	d.mu.Unlock()
	d.nudge()
}

// alarm shortens the sleep to the next thing that falls due.
type alarm struct {
	now  lifecycle.Instant
	wait time.Duration
}

// boot reports whether the boot-time clock has reached at, and else sets the alarm.
func (a *alarm) boot(at time.Duration) bool { return a.in(at - a.now.Boot) }

// wall does the same for the wall clock; a zero time never comes.
func (a *alarm) wall(at time.Time) bool { return !at.IsZero() && a.in(at.Sub(a.now.Wall)) }

func (a *alarm) in(left time.Duration) bool {
	if left <= 0 {
		return true
	}
	a.wait = min(a.wait, left)
	return false
}

// flush stores what only memory has, at the end.
func (d *Device) flush() {
	d.mu.RLock()
	var unsaved []*Holder
	for _, h := range d.holders {
		if h.unsaved {
			unsaved = append(unsaved, h)
		}
	}
	d.mu.RUnlock()
	for _, h := range unsaved {
		d.save(h)
	}
	d.saveFloor()
}
