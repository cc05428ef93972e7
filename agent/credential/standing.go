package credential

import (
	"cmp"
	"fmt"
	"sort"
	"strings"
	"time"

	"postern/agent/lifecycle"
	"postern/store"
)

// Standing is what one identity can do at this instant, and why. It is a
// value, derived when it was asked for.
type Standing struct {
	Identity Identity
	State    lifecycle.State
	Until    time.Time // next instant at which State can change by time alone, UTC; zero for never
	Reason   string    // why State is not Connected, one line; empty if it is
	Fix      string    // one command; empty if time alone heals it or nothing is wrong
	// Credential is the one to use, nil if there is none that may be used: also
	// when the keys were exposed, whatever State says. Previous is the one
	// before, while Credential has not earned a token yet: an authority that
	// has not heard of the new key takes the old one.
	Credential, Previous *Credential
	RenewAt              time.Time // when renewal is due, UTC; zero without a certificate
	NotBefore, NotAfter  time.Time // of the certificate, UTC; zero without one
	LastError            string    // of the newest attempt that failed, until one succeeds
	NextTry              time.Time // wall clock, UTC; zero if no attempt is planned
	Exposed              string    // who could read the keys; empty if nobody. Only reconnect cures it
}

// MayIssue reports whether a new token may be asked for: the state allows it,
// and nobody else could read the key.
func (s Standing) MayIssue() bool { return s.State.MayIssue() && s.Exposed == "" }

// Standing returns the standing of one identity. For a client id that this
// device does not have the result is false, and State says how the device
// stands: Unenrolled, or Damaged.
func (d *Device) Standing(clientID string) (Standing, bool) {
	now := d.clock.Now()
	d.mu.RLock()
	defer d.mu.RUnlock()
	if h, ok := d.holders[strings.ToLower(clientID)]; ok {
		return d.standing(h, now), true
	}
	return d.vacant(), false
}

// List returns the standings of all identities: the system-assigned first, the
// others by name.
func (d *Device) List() []Standing {
	now := d.clock.Now()
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.list(now)
}

func (d *Device) list(now lifecycle.Instant) []Standing {
	all := make([]Standing, 0, len(d.holders))
	for _, h := range d.holders {
		all = append(all, d.standing(h, now))
	}
	sort.Slice(all, func(i, j int) bool {
		a, b := all[i].Identity, all[j].Identity
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ClientID, b.ClientID)) < 0
	})
	return all
}

// System returns the standing of the system-assigned identity. Without one the
// result is false, and State says how the device stands.
func (d *Device) System() (Standing, bool) {
	now := d.clock.Now()
	d.mu.RLock()
	defer d.mu.RUnlock()
	if h := d.system(); h != nil {
		return d.standing(h, now), true
	}
	return d.vacant(), false
}

// Resolve finds the identity that a request means. Errors wrap
// ErrUnknownIdentity ("Identity not found") or ErrAmbiguous. On a device that
// has no identity at all there is no error but a Standing without an Identity,
// Unenrolled or Damaged, so that callers answer by state.
func (d *Device) Resolve(s Selector) (Standing, error) {
	now := d.clock.Now()
	d.mu.RLock()
	defer d.mu.RUnlock()
	if len(d.holders) == 0 {
		return d.vacant(), nil
	}
	h, err := d.choose(s)
	if err != nil {
		return Standing{}, err
	}
	return d.standing(h, now), nil
}

// system is the holder of the system-assigned identity, nil if there is none. mu is held.
func (d *Device) system() *Holder {
	for _, h := range d.holders {
		if h.identity.Kind == SystemAssigned {
			return h
		}
	}
	return nil
}

// vacant is the standing of a device without the identity in question. mu is held.
func (d *Device) vacant() Standing {
	state, _ := lifecycle.Derive(lifecycle.Facts{Damaged: words(d.damaged)}, time.Time{})
	st := Standing{State: state, Exposed: d.dev.Exposed}
	d.explain(&st, nil, lifecycle.Instant{})
	return st
}

// facts gathers what Derive needs. mu is held.
func (d *Device) facts(h *Holder, now lifecycle.Instant) lifecycle.Facts {
	f := lifecycle.Facts{
		Damaged: cmp.Or(words(d.damaged), h.damaged), Moved: d.moved, RejectedAt: h.rejectedAt,
		LastContact: d.contact.LastContact(now), OfflineAfter: d.o.OfflineAfter, ClockTrusted: now.Trusted,
	}
	if c := h.Current(); c != nil {
		f.Enrolled, f.NotBefore, f.NotAfter = true, c.Leaf().NotBefore.UTC(), c.Leaf().NotAfter.UTC()
	}
	return f
}

// state derives h's state. mu is held.
func (d *Device) state(h *Holder, now lifecycle.Instant) (lifecycle.State, time.Time) {
	return lifecycle.Derive(d.facts(h, now), now.Wall)
}

// standingOf is standing for those who do not hold mu.
func (d *Device) standingOf(h *Holder) Standing {
	now := d.clock.Now()
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.standing(h, now)
}

func (d *Device) standing(h *Holder, now lifecycle.Instant) Standing {
	f := d.facts(h, now)
	state, until := lifecycle.Derive(f, now.Wall)
	st := Standing{
		Identity: h.identity, State: state, Until: until, RenewAt: h.renewAt,
		NotBefore: f.NotBefore, NotAfter: f.NotAfter, LastError: h.lastError, Exposed: d.dev.Exposed,
	}
	if d.dev.Exposed == "" && f.Damaged == "" {
		st.Credential = h.Current()
		if h.proven.IsZero() && !h.retired && h.previous != nil && now.Wall.Before(h.previous.Leaf().NotAfter) {
			st.Previous = h.previous
		}
	}
	if wait := h.next - now.Boot; wait > 0 && (h.attempts > 0 || state == lifecycle.Rejected) && state.MayContact() {
		st.NextTry = now.Wall.Add(wait).UTC()
	}
	d.explain(&st, h, now)
	return st
}

// explain fills Reason and Fix. h is nil for a device without identity. mu is held.
func (d *Device) explain(st *Standing, h *Holder, now lifecycle.Instant) {
	if st.Exposed != "" {
		st.Reason, st.Fix = "the keys are exposed: "+st.Exposed, fixReconnect
		if d.damaged != nil { // which stands in the way of reconnect
			st.Fix = cmp.Or(store.FixOf(d.damaged), fixReconnect)
		}
		return
	}
	switch st.State {
	case lifecycle.Damaged:
		st.Reason, st.Fix = words(d.damaged), cmp.Or(store.FixOf(d.damaged), fixReconnect)
		if d.damaged == nil && h != nil {
			st.Reason = h.damaged
		}
	case lifecycle.Unenrolled:
		st.Reason, st.Fix = "this device is not connected", fixConnect
		if h != nil && h.identity.Kind == UserAssigned {
			st.Reason, st.Fix = d.unenrolled(h)
		}
	case lifecycle.Moved:
		st.Reason, st.Fix = "the hardware is not the one that was connected: a copied card, or replaced parts", fixAdopt
	case lifecycle.Rejected:
		st.Reason = fmt.Sprintf("since %s: %s", stamp(h.rejectedAt), h.rejection)
		st.Fix = fixReconnect
	case lifecycle.ClockUntrusted:
		st.Reason, st.Fix = "the clock says "+stamp(now.Wall)+": "+now.Reason, fixClock
	case lifecycle.Expired:
		st.Reason, st.Fix = "the certificate ended "+stamp(st.NotAfter), fixReconnect
		if h.identity.Kind == UserAssigned && d.dev.Assignments {
			st.Fix = d.fixAssign(h, " --renew")
		}
	case lifecycle.Offline:
		st.Reason, st.Fix = d.silence(now), fixReach
	}
}

func (d *Device) unenrolled(h *Holder) (reason, fix string) {
	switch {
	case h.lastError != "":
		return "it is assigned, and enrolling it did not succeed: " + h.lastError, fixStatus
	case d.dev.Assignments && !h.fixed:
		return "it is assigned, and the authority offers no enrolment: an operator must assign it again",
			d.fixAssign(h, "")
	}
	return "it is configured and has no certificate yet", fixConnect
}

// fixAssign is the operator's command that gives this device the identity. mu is held.
func (d *Device) fixAssign(h *Holder, flag string) string {
	machine := "MACHINE"
	if sys := d.system(); sys != nil {
		machine = sys.identity.Name
	}
	return "sudo postern authority identity assign " + h.identity.Name + " " + machine + flag + "   # on the authority"
}

func (d *Device) silence(now lifecycle.Instant) string {
	last, failure := d.contact.LastContact(now), d.contact.LastFailure()
	said := "the authority has not been heard yet"
	if !last.IsZero() {
		said = "the authority was last heard " + stamp(last)
	}
	if failure.Reason != "" {
		said += "; " + failure.Reason
	}
	return said
}
