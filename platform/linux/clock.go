//go:build linux

package linux

import (
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"postern/platform"
)

// A full reading costs two system calls, and every token asks for the time
// more than once. For a second it is carried on by the monotonic clock, which
// costs none, as long as the wall clock moves with it: a step or a suspend makes
// the two differ, and then the clocks are read again.
const (
	clockCarry = time.Second
	clockSlack = time.Millisecond
)

// reading is a full reading and when it was made.
type reading struct {
	at    time.Time // for its monotonic part
	wall  time.Time // without one
	clock platform.Clock
}

// Clock reads CLOCK_REALTIME, CLOCK_BOOTTIME (which counts suspend) and asks
// adjtimex, without setting anything, whether something steers the clock. A
// kernel or filter that does not answer counts as not synchronised.
func (h *Host) Clock() platform.Clock {
	now := time.Now()
	if last := h.lastClock.Load(); last != nil {
		passed, wall := now.Sub(last.at), now.Round(0).Sub(last.wall)
		if passed >= 0 && passed < clockCarry && (wall-passed).Abs() < clockSlack {
			c := last.clock
			c.Wall, c.Boot = now.Round(0).UTC(), c.Boot+passed
			return c
		}
	}
	c := h.readClock()
	h.lastClock.Store(&reading{at: now, wall: now.Round(0), clock: c})
	return c
}

func (h *Host) readClock() platform.Clock {
	c := platform.Clock{Wall: time.Now().Round(0).UTC(), BootID: h.bootID}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err == nil {
		c.Boot = time.Duration(ts.Nano())
	}
	var tx unix.Timex
	state, err := unix.Adjtimex(&tx)
	c.Synchronised = err == nil && synchronised(state, tx.Status)
	return c
}

// timeError is adjtimex's state for a clock that nothing steers (TIME_ERROR).
const timeError = 5

func synchronised(state int, status int32) bool {
	return state != timeError && status&unix.STA_UNSYNC == 0
}

// readBootID is the kernel's random name of this boot; empty where it is
// hidden, and then nothing can be proven across a restart of the agent.
func readBootID(facts string) string {
	return strings.TrimSpace(readLimited(filepath.Join(facts, "proc/sys/kernel/random/boot_id"), 64))
}
