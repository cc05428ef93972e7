package lifecycle

import "time"

// Derive says what an identity can do at now, a reading of the wall clock, and
// until when that answer holds if no fact changes: the next instant at which
// it changes by time alone, UTC, zero for never. It is pure and total; the
// order of its cases is the order of the states.
//
// An identity without a certificate (NotAfter is zero) is Unenrolled: there is
// nothing that could be over. The last second counts: at NotAfter itself the
// identity is Expired. Without a trusted clock nothing expires.
func Derive(f Facts, now time.Time) (state State, until time.Time) {
	switch {
	case f.Damaged != "":
		return Damaged, time.Time{}
	case !f.Enrolled || f.NotAfter.IsZero():
		return Unenrolled, time.Time{}
	case f.Moved:
		return Moved, time.Time{}
	case !f.RejectedAt.IsZero():
		return Rejected, time.Time{}
	case !f.ClockTrusted:
		return ClockUntrusted, time.Time{}
	case !now.Before(f.NotAfter):
		return Expired, time.Time{}
	}
	lost := f.contactLostAt()
	if !now.Before(lost) {
		return Offline, f.NotAfter.UTC()
	}
	return Connected, earlier(lost, f.NotAfter).UTC()
}

// contactLostAt is when the last contact stops to count; zero if there was none.
func (f Facts) contactLostAt() time.Time {
	if f.LastContact.IsZero() {
		return time.Time{}
	}
	after := f.OfflineAfter
	if after <= 0 {
		after = DefaultOfflineAfter
	}
	return f.LastContact.Add(after)
}

// ServesCached reports whether a cached token that still lives may be handed
// out in this state. proven is the second result of Remaining.
func (s State) ServesCached(proven bool) bool {
	switch s {
	case Expired, Offline, Connected:
		return true
	case ClockUntrusted:
		return proven
	}
	return false
}

// MayIssue reports whether a new token may be asked for in this state.
func (s State) MayIssue() bool { return s == Offline || s == Connected }

// MayContact reports whether the authority may be contacted at all: in
// ClockUntrusted only to learn the time, in Rejected once an hour, since a
// mistake at the authority can be undone. Expired contacts nobody.
func (s State) MayContact() bool {
	switch s {
	case Rejected, ClockUntrusted, Offline, Connected:
		return true
	}
	return false
}

// RejectedRetry is how often a Rejected identity asks again.
const RejectedRetry = time.Hour

// ConfirmRejection is the least time between the two refusals that make an
// identity Rejected.
const ConfirmRejection = 10 * time.Minute

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
