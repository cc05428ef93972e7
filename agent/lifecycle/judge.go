package lifecycle

import (
	"fmt"
	"time"
)

// Clock limits (firmware-notes/time.md).
const (
	// ClockTolerance is by how much two clocks may differ and still agree.
	ClockTolerance = 5 * time.Minute
	// ClockJump is the difference at which a clock contradicts another.
	ClockJump = 24 * time.Hour
)

// Reading is one reading of the device's clocks, taken together. It has the
// shape of platform.Clock and converts from it.
type Reading struct {
	Wall         time.Time     // UTC, without a monotonic part
	Boot         time.Duration // since boot, suspend included
	BootID       string        // changes at every boot
	Synchronised bool          // the kernel says that a time source steers the clock
}

// Instant is a reading with its verdict.
type Instant struct {
	Wall    time.Time     // UTC, whatever it is worth
	Boot    time.Duration // since boot, suspend included
	BootID  string
	Trusted bool   // Wall may be believed
	Reason  string // why, or why not, in words for status: "kernel synchronised"
}

// Mark is a wall time that was so at one instant of the boot-time clock.
type Mark struct {
	Wall   time.Time
	Boot   time.Duration
	BootID string
}

// at is what the wall clock should say at r if it went on from the mark; false
// if the device was restarted in between or nothing was marked.
func (m Mark) at(r Reading) (time.Time, bool) {
	if m.Wall.IsZero() || m.BootID != r.BootID || r.Boot < m.Boot {
		return time.Time{}, false
	}
	return m.Wall.Add(r.Boot - m.Boot), true
}

// ClockState is what Judge knows besides the reading. The zero value knows
// nothing. Only Floor outlives the process.
type ClockState struct {
	Vouched bool      // configuration says that the wall clock is right
	Build   time.Time // of this program; the floor never sinks below it
	Floor   time.Time // a time that has certainly passed
	// Anchor is the last believed reading of this boot; Confirmed tells one
	// that the kernel or the authority stood for from one that only
	// configuration did.
	Anchor    Mark
	Confirmed bool
	// Authority is the authority's newest Date.
	Authority Mark
}

// floor is the time that has certainly passed.
func (s ClockState) floor() time.Time { return later(s.Build, s.Floor) }

// credible says whether the authority's clock itself may be believed.
func (s ClockState) credible() bool {
	return !s.Authority.Wall.Before(s.Build.Add(-ClockTolerance))
}

// Judge decides whether the wall clock of r may be believed. It is pure; the
// returned state is the one to pass next time. First rule that fits:
//
//  1. before the floor: not trusted;
//  2. within 5 min of the authority's Date, carried on by the boot-time clock: trusted;
//  3. 24 h or more off it: not trusted, even if synchronised, because time
//     servers are not authenticated (firmware-notes/attack-surface.md, T23);
//  4. the kernel is synchronised: trusted;
//  5. in step with the boot-time clock since 2 or 4: trusted. A link that is
//     down takes its time server with it, and the kernel forgets within hours;
//  6. 24 h or more ahead of a clock that was believed: not trusted;
//  7. vouched for by configuration: trusted.
//
// Restarting the device forgets 2, 3, 5 and 6.
func Judge(s ClockState, r Reading) (ClockState, Instant) {
	r.Wall = r.Wall.Round(0).UTC()
	trusted, confirmed, reason := s.judge(r)
	if trusted {
		_, anchored := s.Anchor.at(r)
		if confirmed || !anchored {
			s.Anchor = Mark{Wall: r.Wall, Boot: r.Boot, BootID: r.BootID}
			s.Confirmed = confirmed
		}
	}
	return s, Instant{Wall: r.Wall, Boot: r.Boot, BootID: r.BootID, Trusted: trusted, Reason: reason}
}

// judge applies the rules; confirmed says that the verdict rests on r alone
// and the authority, not on an earlier reading or on configuration.
func (s ClockState) judge(r Reading) (trusted, confirmed bool, reason string) {
	if floor := s.floor(); r.Wall.Before(floor.Add(-ClockTolerance)) {
		return false, false, "before " + floor.UTC().Format("2006-01-02 15:04") + ", which has passed"
	}
	if want, ok := s.Authority.at(r); ok && s.credible() {
		switch gap := r.Wall.Sub(want); {
		case gap.Abs() <= ClockTolerance:
			return true, true, "agrees with the authority"
		case gap.Abs() >= ClockJump:
			return false, false, off(gap) + " the authority's"
		}
	}
	if r.Synchronised {
		return true, true, "kernel synchronised"
	}
	if want, ok := s.Anchor.at(r); ok {
		switch gap := r.Wall.Sub(want); {
		case s.Confirmed && gap.Abs() <= ClockTolerance:
			return true, false, "in step since it was last confirmed"
		case gap >= ClockJump:
			return false, false, "jumped " + off(gap) + " the boot clock"
		}
	}
	if s.Vouched {
		return true, false, "vouched for by configuration"
	}
	return false, false, "not synchronised, and the authority has not confirmed it"
}

// off words a difference: "3h20m ahead of", "49h behind".
func off(gap time.Duration) string {
	d := gap.Abs().Round(time.Minute)
	if gap < 0 {
		return fmt.Sprintf("%s behind", d)
	}
	return fmt.Sprintf("%s ahead of", d)
}

// see takes in the authority's Date, received at r. The floor rises to it when
// it agrees with our clock: a Date alone must not lift it, or an authority
// whose clock ran ahead for an hour would leave a floor under which no chain
// verifies. It sinks to a Date that lies before it, but never below the build.
// An anchor that the Date contradicts is dropped, so that it does not come back
// as proof after a restart of the process.
func (s ClockState) see(date time.Time, r Reading) ClockState {
	date = date.Round(0).UTC()
	s.Authority = Mark{Wall: date, Boot: r.Boot, BootID: r.BootID}
	if !s.credible() {
		return s
	}
	if was, ok := s.Anchor.at(r); ok && was.Sub(date).Abs() >= ClockJump {
		s.Anchor, s.Confirmed = Mark{}, false // who stood for it was wrong, then or now
	}
	switch floor := s.floor(); {
	case date.Before(floor.Add(-ClockTolerance)):
		s.Floor = date // floor() keeps it above the build
	case date.After(floor) && r.Wall.Sub(date).Abs() <= ClockTolerance:
		s.Floor = date
	}
	return s
}
