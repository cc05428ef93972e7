package control

import (
	"errors"
	"fmt"
)

// Exit codes, stable from the first release (firmware-notes/exit-codes.md).
const (
	ExitDone       = 0
	ExitFailed     = 1
	ExitUsage      = 2 // usage or configuration
	ExitNotRunning = 3
	ExitUnenrolled = 4
	ExitExpired    = 5
	ExitOffline    = 6 // Offline or ClockUntrusted
	ExitPermission = 7
	ExitTimeout    = 8
	ExitRejected   = 9
	ExitCheck      = 10 // check found errors
	ExitDamaged    = 11 // Damaged, or insecure key files
	ExitMoved      = 12

	ExitInterrupted = 130 // by a signal, before it was done: as a shell counts it
)

// Fault is an error as a person meets it: what and why in one sentence, and
// the next command. It crosses the control socket whole, so that a verb prints
// the same with and without a running agent. ID is a stable kebab-case name,
// the same in CLI, log and check.
type Fault struct {
	Schema  string   `json:"schema"` // "postern.error/1"
	ID      string   `json:"id"`
	Message string   `json:"message"`
	Fix     string   `json:"fix,omitempty"` // one command
	Exit    int      `json:"exit"`          // one of the Exit codes
	Chain   []string `json:"chain,omitempty"`

	cause error
}

const faultSchema = "postern.error/1"

// Fix lines that the command line turns into the command that was given: what
// runs in the agent does not know it.
const (
	AgainWithSudo = "run the command again with sudo"
	AgainWithYes  = "run it again with --yes"
)

// NewFault makes a fault whose message stands on its own.
func NewFault(exit int, id, fix, format string, args ...any) *Fault {
	err := fmt.Errorf(format, args...)
	return &Fault{Schema: faultSchema, ID: id, Message: err.Error(), Fix: fix, Exit: exit, cause: errors.Unwrap(err)}
}

func (f *Fault) Error() string { return f.Message }

// Unwrap returns the cause, nil when the fault came over the socket.
func (f *Fault) Unwrap() error { return f.cause }

// AsFault returns the fault in err's chain, or wraps err as a plain failure.
// It returns nil for nil.
func AsFault(err error) *Fault {
	if err == nil {
		return nil
	}
	var f *Fault
	if errors.As(err, &f) {
		if f.Error() == err.Error() {
			return f
		}
		outer := *f
		outer.Message, outer.cause = err.Error(), f
		return &outer
	}
	return &Fault{Schema: faultSchema, ID: "failed", Message: err.Error(), Exit: ExitFailed, cause: err}
}

// CauseChain lists the messages from err down to its root, each once.
func CauseChain(err error) []string {
	var chain []string
	for ; err != nil; err = errors.Unwrap(err) {
		if msg := err.Error(); len(chain) == 0 || chain[len(chain)-1] != msg {
			chain = append(chain, msg)
		}
	}
	return chain
}
