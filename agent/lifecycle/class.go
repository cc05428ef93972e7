package lifecycle

import (
	"errors"
	"strings"
	"time"
)

// Class is what every error of an authority is reduced to, once, in the driver
// that saw it. Nobody above a driver looks at status codes.
type Class uint8

// The classes. The numbers and strings are fixed.
const (
	ClassTransient   Class = 1 // try again later
	ClassClock       Class = 2 // one of the two clocks is wrong
	ClassRejected    Class = 3 // the authority no longer knows this identity
	ClassBadResource Class = 4 // the resource asked for does not exist there
	ClassDenied      Class = 5 // the identity is known and may not do this
)

// String returns the fixed name: transient, clock, rejected, bad-resource, denied.
func (c Class) String() string {
	switch c {
	case ClassTransient:
		return "transient"
	case ClassClock:
		return "clock"
	case ClassRejected:
		return "rejected"
	case ClassBadResource:
		return "bad-resource"
	case ClassDenied:
		return "denied"
	}
	return "unclassified"
}

// Error is a failed call to an authority.
type Error struct {
	Class      Class
	RetryAfter time.Duration // the authority's wish, clamped to 0..6 h; 0 means none
	Throttled  bool          // the authority answered 429
	Answered   bool          // an answer came that only the authority could give: this is contact
	Op         string        // driver and call: "stepca: rekey"
	Code       string        // the authority's own code: "invalid_client", "AADSTS700027"; may be empty
	Reason     string        // the authority's words, printable, at most 256 bytes; may be empty
	Err        error         // the cause below; may be nil
}

func (e *Error) Error() string {
	parts := []string{e.Code, e.Reason}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	s := e.Op
	for _, part := range parts {
		if part != "" {
			s = strings.TrimRight(s, ".") + ": " + part // authorities end their words as sentences
		}
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ClassOf returns the class of the Error in err's chain. An error without one
// (a deadline, a closed connection) is ClassTransient; nil has no class, 0.
func ClassOf(err error) Class {
	if err == nil {
		return 0
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	return ClassTransient
}
