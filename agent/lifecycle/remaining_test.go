package lifecycle_test

import (
	"testing"
	"time"

	"postern/agent/lifecycle"
)

// issue is a token of an hour that came at born, an hour after boot "a".
type issue struct {
	boot    time.Duration
	bootID  string
	trusted bool
}

func TestRemainingIsTheSmallerOfWallAndBootClock(t *testing.T) {
	const min = time.Minute
	at := func(wall, boot time.Duration, id string, trusted bool) lifecycle.Instant {
		return lifecycle.Instant{Wall: born.Add(wall), Boot: boot, BootID: id, Trusted: trusted}
	}
	trusted, untrusted := issue{60 * min, "a", true}, issue{60 * min, "a", false}
	for _, row := range []struct {
		name   string
		issued issue
		now    lifecycle.Instant
		left   time.Duration
		proven bool
	}{
		{"just issued", trusted, at(0, 60*min, "a", true), 60 * min, true},
		{"half over", trusted, at(30*min, 90*min, "a", true), 30 * min, true},
		{"last second", trusted, at(60*min-time.Second, 120*min-time.Second, "a", true), time.Second, true},
		{"over", trusted, at(60*min, 120*min, "a", true), 0, true},
		{"long over", trusted, at(999*min, 1059*min, "a", true), 0, true},

		{"paused machine: the boot clock stood still", trusted, at(50*min, 61*min, "a", true), 10 * min, true},
		{"wall set back by a day", trusted, at(-24*60*min, 90*min, "a", true), 30 * min, true},
		{"wall set back, not believed", trusted, at(-24*60*min, 90*min, "a", false), 30 * min, true},
		{"wall set forward, not believed: nothing ends early", trusted, at(24*60*min, 90*min, "a", false), 30 * min, true},
		{"issued in 1970, clock right since", untrusted, at(20*365*24*60*min, 90*min, "a", true), 30 * min, true},
		{"issued in 1970, still there", untrusted, at(30*min, 90*min, "a", false), 30 * min, true},

		{"after a reboot, clock trusted", trusted, at(40*min, 1*min, "b", true), 20 * min, true},
		{"after a reboot, clock back in 1970", trusted, at(-365*24*60*min, 1*min, "b", false), 60 * min, false},
		{"after a reboot, clock plausible", trusted, at(40*min, 1*min, "b", false), 20 * min, false},
		{"after a reboot, clock in 2106", trusted, at(80*365*24*60*min, 1*min, "b", false), 0, false},
		{"issued in 1970, rebooted, clock trusted", untrusted, at(20*365*24*60*min, 1*min, "b", true), 0, false},
		{"boot clock ran backwards: not that boot", trusted, at(40*min, 59*min, "a", false), 20 * min, false},
		{"boot without a name proves nothing", issue{60 * min, "", true}, at(40*min, 61*min, "", false), 20 * min, false},
	} {
		left, proven := lifecycle.Remaining(born, born.Add(time.Hour), row.issued.boot, row.issued.bootID, row.now, row.issued.trusted)
		if left != row.left || proven != row.proven {
			t.Errorf("%s: %s, proven %v; want %s, proven %v", row.name, left, proven, row.left, row.proven)
		}
	}
}

func TestATokenThatEndsBeforeItBeginsIsOver(t *testing.T) {
	now := lifecycle.Instant{Wall: born, Boot: time.Hour, BootID: "a", Trusted: true}
	if left, _ := lifecycle.Remaining(born, born.Add(-time.Hour), 0, "a", now, true); left != 0 {
		t.Errorf("%s left", left)
	}
}
