//go:build linux

package linux

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Harden is steps 1 to 3 of firmware-notes/attack-surface.md: umask, no core file, not
// dumpable (which also stops ptrace and /proc/PID/mem by our own uid), no new
// privileges on every thread. Call it after a change of account, which may
// make the process dumpable again, and before a secret is read.
func (h *Host) Harden() (string, error) {
	var done []string
	var errs []error
	step := func(name string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			return
		}
		done = append(done, name)
	}
	unix.Umask(0o077)
	step("core", unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}))
	step("dump", undumpable())
	step("privileges", noNewPrivileges())
	return strings.Join(done, " "), errors.Join(errs...)
}

func undumpable() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return err
	}
	got, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err == nil && got != 0 {
		err = errors.New("is still dumpable")
	}
	return err
}

// noNewPrivileges marks all threads: a plain prctl would mark the calling one.
func noNewPrivileges() error {
	return onAllThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0)
}

// onAllThreads makes one system call on every thread of the process. It is not
// to be had in a binary with cgo, whose threads Go does not know.
func onAllThreads(trap, a1, a2, a3 uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall6(trap, a1, a2, a3, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
