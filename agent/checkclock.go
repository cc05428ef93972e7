package main

import (
	"context"
	"net/url"
	"strconv"
	"time"

	"postern/agent/authority"
)

func clockChecks() []check {
	return []check{
		{"clock-trusted", "clock", warning, checkClockTrusted},
		{"clock-floor", "clock", warning, checkClockFloor},
	}
}

func checkClockTrusted(_ context.Context, f *facts) finding {
	if !f.known {
		return f.why
	}
	if c := f.status.Clock; !c.Trusted {
		return warn("sudo timedatectl set-ntp true   # or clock = \"trusted\" in the configuration, if a battery keeps the time", "the clock cannot be believed: %s", c.Reason)
	}
	return ok("trusted (%s)", f.status.Clock.Reason)
}

// checkClockFloor finds a clock that stands before what is known to be past.
func checkClockFloor(_ context.Context, f *facts) finding {
	if !f.known {
		return f.why
	}
	floor := f.status.Clock.Floor
	if floor.After(f.status.Now) {
		return warn("sudo timedatectl set-ntp true   # or: sudo date -s @"+unixText(floor), "it is at least %s, and our clock says %s",
			floor.UTC().Format(time.RFC3339), f.status.Now.UTC().Format(time.RFC3339))
	}
	return ok("not before %s", dateOr(floor, "any date"))
}

func unixText(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }

func hostPort(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	return authority.Address(u)
}
