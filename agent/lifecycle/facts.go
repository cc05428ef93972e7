package lifecycle

import "time"

// Facts are what is known of one identity. They are stored in pieces (see each
// field); the State that follows from them never is.
type Facts struct {
	Damaged  string // why the identity cannot be read; empty if it can. Found at open
	Enrolled bool   // there is an identity record

	Moved bool // the hardware fingerprint does not match. Found at start

	RejectedAt time.Time // when the refusal was confirmed; zero if it is not. identity.db

	NotBefore time.Time // of the current certificate, UTC
	NotAfter  time.Time // of the current certificate, UTC

	LastContact  time.Time     // last answer that only the authority could give; zero if never
	OfflineAfter time.Duration // how long without contact until Offline; 0 means DefaultOfflineAfter

	ClockTrusted bool // the wall clock that gave now may be believed
}

// DefaultOfflineAfter is the time without contact after which an identity is Offline.
const DefaultOfflineAfter = 15 * time.Minute
