//go:build linux

package linux

import (
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"postern/platform"
)

// Clock reads CLOCK_REALTIME, CLOCK_BOOTTIME (which counts suspend) and asks
// adjtimex, without setting anything, whether something steers the clock. A
// kernel or filter that does not answer counts as not synchronised.
func (h *Host) Clock() platform.Clock {
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
