package main

import (
	"fmt"
	"time"

	"postern/agent/audit"
	"postern/agent/lifecycle"
	"postern/store"
)

// noticed is what the audit was told of. The slow loop's alone.
type noticed struct {
	clock     lifecycle.Instant
	recovered map[string]time.Time // by path of the database
}

// notice keeps in the audit what happened to the device and no caller or
// authority had a part in: its clock was set, a database was restored or made
// anew.
func (g *graph) notice() {
	now := g.clock.Now()
	if reason := jump(g.noticed.clock, now); reason != "" {
		g.audit.Record(audit.Event{Name: audit.ClockJumped, Reason: reason})
	}
	g.noticed.clock = now
	for _, h := range []store.Health{g.file.Health(), g.cache.Health()} {
		if h.RecoveredAt.Equal(g.noticed.recovered[h.Path]) {
			continue
		}
		if g.noticed.recovered == nil {
			g.noticed.recovered = map[string]time.Time{}
		}
		g.noticed.recovered[h.Path] = h.RecoveredAt
		g.audit.Record(audit.Event{Name: audit.StoreRecovered, Reason: h.Path + ": " + h.Recovered, Logged: true})
	}
}

// jump says how far the wall clock was set between two looks of one boot, and
// whether it is believed now; empty if it went on in step with the boot-time
// clock. The first look knows of none.
func jump(before, now lifecycle.Instant) string {
	if before.Wall.IsZero() || before.BootID != now.BootID {
		return ""
	}
	gap := now.Wall.Sub(before.Wall) - (now.Boot - before.Boot)
	if gap.Abs() <= lifecycle.ClockTolerance {
		return ""
	}
	way, worth := "ahead", "believed"
	if gap < 0 {
		way = "back"
	}
	if !now.Trusted {
		worth = "not believed"
	}
	return fmt.Sprintf("the clock was set %s by %s to %s, which is %s: %s",
		way, span(gap), now.Wall.Format(time.DateTime), worth, now.Reason)
}
