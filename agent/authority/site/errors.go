package site

import "errors"

// What callers of the administration branch on. The admin socket carries them.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")
	ErrAssigned = errors.New("still assigned")
	ErrInvalid  = errors.New("not valid")
	ErrTooMany  = errors.New("too many")
	// ErrNotAdministrator is the answer of the admin socket to other accounts.
	ErrNotAdministrator = errors.New("only root and the account that runs the authority may administer it")
)

// Why a credential is refused. They appear in the audit; the wire says less.
var (
	errUnknown      = errors.New("certificate is not known here")
	errRevoked      = errors.New("certificate is revoked")
	errExpired      = errors.New("certificate is expired")
	errNotYet       = errors.New("certificate is not valid yet")
	errDeleted      = errors.New("identity is deleted")
	errDisabled     = errors.New("identity is disabled")
	errUnassigned   = errors.New("identity is not assigned to this machine")
	errDisconnected = errors.New("machine is disconnected")
)

func isNotFound(err error) bool { return errors.Is(err, ErrNotFound) }
