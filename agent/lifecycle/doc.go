// Package lifecycle is the offline-expiry state machine and everything that
// follows from time alone: what an identity can do now, when it renews, how
// long to wait after a failure, whether the wall clock may be believed, how
// long a token still lives.
//
// Facts are stored, the state never is: Derive is pure and total, so that a
// clock that is put right, or a certificate that is restored, heals the state
// with nothing to reset. Every policy function takes the time, and chance, as
// arguments; the room never reads a clock of its own accord and never waits.
//
// The room uses the standard library only and imports no other room. Callers
// are credential, token, endpoint and the drivers. Two types hold something:
// Clock (around the pure Judge) and Contact; both are safe for concurrent use.
//
// Caveats: Derive believes ClockTrusted, which must come from the same Instant
// as the now it is given; a certificate that is not valid yet shows in the
// clock floor (Clock.Raise), not in the state.
package lifecycle
