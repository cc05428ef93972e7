package store

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// caught is a panic of bbolt, or a fault in the mapped file, turned into an
// error. The handle it came from must not be used again, not even to close it
// in bbolt's way, since bbolt may still hold its own locks.
type caught struct{ what any }

func (c *caught) Error() string { return fmt.Sprintf("database code stopped: %v", c.what) }

// Unwrap makes errors.Is(err, ErrDamaged) true: only a damaged file, or one
// that was cut short under us, brings bbolt there.
func (c *caught) Unwrap() error { return ErrDamaged }

// guard runs f, which touches a mapped file, so that neither a fault (SIGBUS
// and SIGSEGV at a mapped address) nor an assertion of bbolt ends the process.
// It is the second line: the first is that files are verified before they are
// mapped. It holds for this goroutine alone.
func guard(f func() error) (err error) {
	old := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(old)
	defer func() {
		if p := recover(); p != nil {
			if own, ok := p.(callerPanic); ok {
				panic(own.value)
			}
			err = &caught{p}
		}
	}()
	return f()
}

// callerPanic carries a panic of the caller's own function through guard: that
// is a bug of the program and not of the file.
type callerPanic struct{ value any }

// unguarded runs the caller's f inside a guard. Faults in mapped memory stay
// faults; every other panic is the caller's.
func unguarded(f func() error) error {
	defer func() {
		if p := recover(); p != nil {
			if _, fault := p.(interface{ Addr() uintptr }); fault {
				panic(p)
			}
			panic(callerPanic{p})
		}
	}()
	return f()
}

func wasCaught(err error) bool {
	var c *caught
	return errors.As(err, &c)
}
