package store

import (
	"context"
	"errors"
	"fmt"
)

// What callers branch on. Compared with errors.Is; every message names the path.
var (
	// ErrNotFound: nothing is stored under that key, or there is no key file.
	ErrNotFound = errors.New("not found")
	// ErrCorrupt: the value under a key is not what was written there. It wraps ErrDamaged.
	ErrCorrupt = fmt.Errorf("value is not authentic: %w", ErrDamaged)
	// ErrDamaged: the file cannot be trusted. It must not be written again.
	ErrDamaged = errors.New("damaged")
	// ErrForeign: the file is another program's, or another of our files. It wraps ErrDamaged.
	ErrForeign = fmt.Errorf("not a Postern database: %w", ErrDamaged)
	// ErrWrongKey: the file was sealed with another key-encryption key. It wraps ErrDamaged.
	ErrWrongKey = fmt.Errorf("sealed with another key: %w", ErrDamaged)
	// ErrNewer: the file has the schema of a newer major release; it was left untouched.
	ErrNewer = errors.New("written by a newer release")
	// ErrLocked: another process has the file open.
	ErrLocked = errors.New("in use by another process")
	// ErrUnsafe: what stands at the path is not a regular file; it was left untouched.
	ErrUnsafe = errors.New("not a regular file")
	// ErrRemote: the state directory lies on a network file system.
	ErrRemote = errors.New("network file system")
	// ErrDetached: the state directory was renamed, replaced or removed under the running process.
	ErrDetached = errors.New("state directory was replaced")
	// ErrReadOnly: the file can be read but not written at present; the next Update or Check tries again.
	ErrReadOnly = errors.New("cannot be written at present")
	// ErrUnchecked: the check of a file could not be made or brought to its end:
	// the context ended, or something else ended it. It is no verdict on the file.
	ErrUnchecked = errors.New("not checked")
	// ErrClosed: the file was closed.
	ErrClosed = errors.New("closed")
)

// errSlow: the check of a file did not end in time. Nearly always the machine
// is busy, so it is tried again, and only the third time is it the file's fault.
var errSlow = errors.New("check took more than 10 s")

const slowTries = 3

// settledBy reports whether err is a verdict on a file, which stands until the
// file changes. Any other error, such as bbolt's of a full disk, of which only
// the text comes through, is worth another try.
func settledBy(err error) bool {
	if unchecked(err) || unwritable(err) {
		return false
	}
	for _, e := range []error{ErrDamaged, ErrNewer, ErrUnsafe, ErrNotFound} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// unchecked reports whether err leaves open what a file is worth, because its
// check did not come to an end. Nothing may be rewritten for it.
func unchecked(err error) bool {
	for _, e := range []error{ErrUnchecked, errSlow, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// fixError carries the command that puts a problem right.
type fixError struct {
	err error
	fix string
}

func (e *fixError) Error() string { return e.err.Error() }
func (e *fixError) Unwrap() error { return e.err }

// WithFix attaches a command to err; see FixOf.
func WithFix(err error, fix string) error { return &fixError{err, fix} }

// FixOf returns the command that puts err right, where one is known; otherwise "".
func FixOf(err error) string {
	var f *fixError
	if errors.As(err, &f) {
		return f.fix
	}
	return ""
}
