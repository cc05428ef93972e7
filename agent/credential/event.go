package credential

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"postern/agent/lifecycle"
)

// The kinds of Event, the same words as in the log, the journal and the audit
// ring.
const (
	EventStateChanged      = "state-changed" // any transition that has no name of its own below
	EventExpired           = "expired"
	EventMoved             = "moved"
	EventClockUntrusted    = "clock-untrusted"
	EventClockTrusted      = "clock-trusted"
	EventAuthorityLost     = "authority-lost"
	EventAuthorityRegained = "authority-regained"

	EventRenewed        = "renewed"
	EventRenewalFailed  = "renewal-failed"
	EventRenewalRefused = "renewal-refused"
	EventTokenRefused   = "token-refused" // the issuer does not know the identity
	EventContactFailed  = "contact-failed"
	EventExpiring       = "expiring" // 30, 14, 7, 3 or 1 days left
	EventRetired        = "retired"  // an old certificate was withdrawn
	EventRetireFailed   = "retire-failed"

	EventConnected        = "connected"
	EventDisconnected     = "disconnected"
	EventOnboardingFailed = "onboarding-failed"
	EventAdopted          = "adopted"

	EventAssigned         = "assigned"
	EventAssignmentFailed = "assignment-failed"
	EventUnassigned       = "unassigned" // the identity is gone from this device: drop its tokens

	EventAccessDrift = "access-drift" // keys could be read by others
	EventStoreFailed = "store-failed"
)

// Event is something that happened to an identity, for log and audit.
type Event struct {
	Kind     string
	Time     time.Time // wall clock, UTC
	Trusted  bool      // that clock could be believed
	Identity Identity  // zero for the whole device
	State    lifecycle.State
	Previous lifecycle.State // 0 unless the state changed; 0 as well when it is the first one after a start
	Until    time.Time       // end of State, or of the new certificate; zero if it has none
	Class    lifecycle.Class // of a failure
	Reason   string          // one printable line
	Fix      string          // one command
	Days     int             // EventExpiring
	Next     time.Time       // next attempt after a failure, UTC; zero if none is planned
}

// emit logs e, one line, and hands it on. Nobody may hold a lock.
func (d *Device) emit(e Event) {
	now := d.clock.Now()
	e.Time, e.Trusted = now.Wall, now.Trusted
	d.log.LogAttrs(context.Background(), e.level(), strings.ReplaceAll(e.Kind, "-", " "), e.attrs()...)
	if d.o.Event != nil {
		d.o.Event(e)
	}
}

func (e Event) level() slog.Level {
	switch e.Kind {
	case EventRenewed, EventConnected, EventDisconnected, EventAdopted, EventAssigned, EventUnassigned, EventRetired,
		EventClockTrusted, EventAuthorityRegained:
		return slog.LevelInfo
	case EventExpired, EventMoved, EventRenewalRefused, EventAccessDrift, EventStoreFailed, EventOnboardingFailed:
		return slog.LevelError
	case EventStateChanged:
		if e.State == lifecycle.Connected || e.State == lifecycle.Offline {
			return slog.LevelInfo
		}
	}
	return slog.LevelWarn
}

func (e Event) attrs() []slog.Attr {
	attrs := []slog.Attr{slog.String("event", e.Kind)}
	add := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	add("identity", e.Identity.ClientID)
	if e.State != 0 {
		add("state", e.State.String())
	}
	if e.Previous != 0 {
		add("previous", e.Previous.String())
	}
	if e.Class != 0 {
		add("class", e.Class.String())
	}
	add("reason", e.Reason)
	if e.Days > 0 {
		attrs = append(attrs, slog.Int("days", e.Days))
	}
	if !e.Until.IsZero() {
		add("until", e.Until.UTC().Format(time.RFC3339))
	}
	if !e.Next.IsZero() {
		add("next", e.Next.UTC().Format(time.RFC3339))
	}
	add("fix", e.Fix)
	return attrs
}

const maxWords = 256

// words makes one printable line of an error, some of which others wrote.
func words(err error) string {
	if err == nil {
		return ""
	}
	s := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\u2028' || r == '\u2029' || r >= 0x80 && r <= 0x9f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(err.Error(), "?"))
	if len(s) > maxWords {
		s = strings.ToValidUTF8(s[:maxWords], "")
	}
	return s
}
