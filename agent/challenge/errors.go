package challenge

import (
	"errors"
	"fmt"
	"io/fs"

	"postern/platform"
)

const checkCommand = "postern check --only token-dir-access"

// DirError says why no challenge can be made: the token directory is missing,
// was replaced, or others could reach it. Answer 503.
type DirError struct {
	Path    string // what is wrong: the token directory or one of its parents
	Problem string // "mode is 0777, want 0750"
	Fix     string // one command; never empty
	Err     error  // the cause; may be nil
}

func (e *DirError) Error() string { return "token directory: " + e.Path + ": " + e.Problem }

// Unwrap returns the cause.
func (e *DirError) Unwrap() error { return e.Err }

// dirError describes err as what is wrong with the directory at path.
func dirError(path string, err error) *DirError {
	var known *DirError
	if errors.As(err, &known) {
		return known
	}
	e := &DirError{Path: path, Problem: err.Error(), Fix: checkCommand, Err: err}
	var access *platform.AccessError
	var at *fs.PathError
	switch {
	case errors.As(err, &access):
		e.Path, e.Problem = access.Path, access.Problem
		if access.Fix != "" {
			e.Fix = access.Fix
		}
	case errors.Is(err, fs.ErrNotExist):
		e.Problem = "does not exist"
	case errors.As(err, &at):
		e.Problem = at.Op + ": " + at.Err.Error()
	}
	return e
}

// InvalidError is ErrInvalid with what the log may say about it. The answer to
// the caller is the same for every reason.
type InvalidError struct {
	Reason    string        // "malformed", "wrong or used", "expired", "made for another caller"
	Presented platform.Peer // who came with it
	Minted    platform.Peer // whom it was made for, if Foreign
	Foreign   bool
}

func (e *InvalidError) Error() string {
	if e.Foreign {
		return fmt.Sprintf("%v: made for %v, presented by %v", ErrInvalid, e.Minted, e.Presented)
	}
	return fmt.Sprintf("%v: %s", ErrInvalid, e.Reason)
}

// Unwrap makes errors.Is(err, ErrInvalid) true.
func (e *InvalidError) Unwrap() error { return ErrInvalid }
