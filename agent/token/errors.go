package token

import (
	"errors"
	"fmt"
	"time"

	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/platform"
)

var (
	// ErrResource is returned for a resource that is empty, longer than 2,048
	// bytes, or not printable ASCII.
	ErrResource = errors.New("resource must be 1 to 2048 printable characters")

	// ErrNotReplicated is wrapped, as the Err of a *lifecycle.Error of
	// ClassTransient, by an Issuer whose authority refuses a key that it may
	// not have heard of yet. The broker then tries the previous credential once.
	ErrNotReplicated = errors.New("the authority does not know the new key yet")
)

// StateError says that an identity's state, or its exposed key, is why there is no token. It is
// final for all states but Offline and ClockUntrusted, which heal by
// themselves.
type StateError struct {
	State   lifecycle.State
	Exposed bool      // whatever the state: others could read the key, so that it is not used
	Reason  string    // why it is in that state, or exposed, one clause; may be empty
	Fix     string    // one command; may be empty
	Until   time.Time // when the state can change by time alone; zero if never
	Err     error     // in state Offline, the try that failed; else nil
}

func (e *StateError) Error() string {
	s := e.State.String()
	if e.Exposed {
		s = "insecure"
	}
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the failed try, nil if none was made.
func (e *StateError) Unwrap() error { return e.Err }

// LimitError says that a bound was reached and when to come back. It wraps
// ErrTooMany. What works already goes on working: only the newcomer is refused.
type LimitError struct {
	Limit      string        // which bound: "32 tokens for uid:1001"
	RetryAfter time.Duration // 1 to 10 s
}

func (e *LimitError) Error() string { return fmt.Sprintf("%v: %s", ErrTooMany, e.Limit) }

// Unwrap makes errors.Is(err, ErrTooMany) true.
func (e *LimitError) Unwrap() error { return ErrTooMany }

// GrantError says which caller was refused what by the grants, and the command
// that would allow it. It wraps ErrNotGranted.
type GrantError struct {
	Peer     platform.Peer
	Identity credential.Identity
	Resource string
	Reason   string // "no grant names uid:1001"
	Fix      string // one command
}

func (e *GrantError) Error() string { return fmt.Sprintf("%v: %s", ErrNotGranted, e.Reason) }

// Unwrap makes errors.Is(err, ErrNotGranted) true.
func (e *GrantError) Unwrap() error { return ErrNotGranted }
