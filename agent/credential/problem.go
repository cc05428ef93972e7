package credential

import (
	"errors"
	"fmt"
	"time"

	"postern/agent/lifecycle"
)

// What callers branch on.
var (
	// ErrUnknownIdentity: no identity of this device fits the selector. The
	// text is quoted on the wire and in documents; package token aliases it.
	ErrUnknownIdentity = errors.New("Identity not found") //nolint:staticcheck,revive // wire text
	// ErrAmbiguous: nothing was selected and there are several user-assigned
	// identities. The text is that of the metadata service.
	ErrAmbiguous = errors.New("Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the token request") //nolint:staticcheck,revive // wire text
	// ErrConnected: connect on a device that is connected.
	ErrConnected = errors.New("this device is already connected")
	// ErrNotConnected: there is no identity to work on.
	ErrNotConnected = errors.New("this device is not connected")
	// ErrBusy: another operation of the same kind is under way; see BusyError.
	ErrBusy = errors.New("another operation is under way")
	// ErrState: the state of the identity does not allow it; see Problem.State.
	ErrState = errors.New("the state does not allow it")
	// ErrCertificate: the authority's answer is not the certificate that was
	// asked for. The credential in use is untouched.
	ErrCertificate = errors.New("certificate refused")
	// ErrUpstreamRecord: the authority could not be told, so its record of
	// this device would stay.
	ErrUpstreamRecord = errors.New("the authority still has a record of this device")
)

// Problem is why something that a person asked for was not done: what and why
// in Err, what to do in Fix. It unwraps to Err.
type Problem struct {
	ID    string          // stable, kebab-case, the same in CLI, log and check: "already-connected"
	Op    string          // the verb: "connect"
	State lifecycle.State // the state that stood in the way; 0 if none did
	Fix   string          // one command; empty if there is none
	Err   error           // never nil
}

func (p *Problem) Error() string { return p.Op + ": " + p.Err.Error() }

// Unwrap returns the cause.
func (p *Problem) Unwrap() error { return p.Err }

// BusyError names the operation that is under way. errors.Is(err, ErrBusy) is true.
type BusyError struct {
	Op    string    // "reconnect"
	PID   int       // the process that does it
	Since time.Time // UTC
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("%s is under way in process %d since %s", e.Op, e.PID, e.Since.UTC().Format(time.RFC3339))
}

// Is makes errors.Is(err, ErrBusy) true.
func (e *BusyError) Is(target error) bool { return target == ErrBusy }

// The commands that stand in fixes.
const (
	fixConnect    = "sudo postern connect --claim-file FILE"
	fixClaim      = "sudo postern authority claim MACHINE   # on the authority: a new one"
	fixReclaim    = "sudo postern authority claim MACHINE --reonboard   # on the authority: a new one"
	fixReconnect  = "sudo postern reconnect --claim-file FILE"
	fixDisconnect = "sudo postern disconnect"
	fixLocalOnly  = "sudo postern disconnect --local-only"
	fixAdopt      = "sudo postern adopt --hardware-changed   # or, if this is a copy: sudo postern reset --enrolment"
	fixReach      = "postern check --only authority-reach"
	fixClock      = "postern check --only clock-trusted"
	fixStore      = "sudo postern check --only store-verify"
	fixStatus     = "postern status"
	fixIdentities = "postern identity list"
	fixRenew      = "sudo postern renew"
	fixAudit      = "sudo postern authority audit   # on the authority: it says why"
	fixRoot       = "sudo postern authority status   # on the authority: it shows the root"
)

// asProblem finds a Problem in err's chain and returns a copy.
func asProblem(err error) (*Problem, bool) {
	var p *Problem
	if !errors.As(err, &p) {
		return nil, false
	}
	own := *p
	return &own, true
}

func isCertificate(err error) bool { return errors.Is(err, ErrCertificate) }
