package lifecycle

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"
)

// Failure is a call to the authority that did not succeed.
type Failure struct {
	At     time.Time // wall clock, whatever it was worth; zero if there was none
	Class  Class
	Reason string // the error's text, one printable line of at most 256 bytes
}

// Contact is what the whole agent knows of its connection: when the authority
// last gave an answer that only it could give, and what went wrong since.
// The zero value knows nothing. Safe for concurrent use; must not be copied.
type Contact struct {
	mu       sync.Mutex
	seen     Instant // last contact of this process; BootID and Boot count
	restored time.Time
	failure  Failure
	failures int     // in a row, since the last contact
	since    Instant // first of them, if there are any
	outage   time.Duration
	regained chan struct{} // closed and replaced when contact is regained
}

// Restore takes in what was stored by an earlier process. It does not replace
// anything newer and is meant to be called once, before use.
func (c *Contact) Restore(last time.Time, failure Failure) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.restored = later(c.restored, last.Round(0).UTC())
	if c.failure.At.IsZero() {
		c.failure = failure
	}
}

// Seen records an answer that only the authority could give. The result is
// how long it had not been heard, if a failure or more than 15 min lay
// between: then contact is regained, Regained fires, and background work
// should Spread by it. Otherwise it is 0.
func (c *Contact) Seen(at Instant) (outage time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seenLocked(at)
}

func (c *Contact) seenLocked(at Instant) time.Duration {
	var silent time.Duration
	switch last := c.lastLocked(at); {
	case !last.IsZero():
		silent = at.Wall.Sub(last)
	case c.failures > 0:
		silent = elapsed(c.since, at)
	}
	regained := c.failures > 0 || silent > DefaultOfflineAfter
	c.seen, c.failures = at, 0
	if !regained {
		return 0
	}
	c.outage = max(silent, 1)
	if c.regained != nil {
		close(c.regained)
		c.regained = nil
	}
	return c.outage
}

// Failed records the outcome of a call that did not succeed. An Error that was
// Answered is contact as well, with Seen's result. A nil error, and one that
// only says that our own caller hung up, are no news.
func (c *Contact) Failed(at Instant, err error) (outage time.Duration) {
	if err == nil || errors.Is(err, context.Canceled) {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failure = Failure{At: at.Wall, Class: ClassOf(err), Reason: line(err.Error())}
	var e *Error
	if errors.As(err, &e) && e.Answered {
		return c.seenLocked(at)
	}
	if c.failures == 0 {
		c.since = at
	}
	c.failures++
	return 0
}

// LastContact is when the authority was last heard, on the wall clock of now,
// UTC; zero if never. Within one boot it is counted on the boot-time clock, so
// that setting the wall clock neither makes nor breaks a contact; a stored one
// that lies in the future is not believed.
func (c *Contact) LastContact(now Instant) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lastLocked(now)
}

func (c *Contact) lastLocked(now Instant) time.Time {
	if !c.seen.Wall.IsZero() {
		return now.Wall.Add(-elapsed(c.seen, now)).UTC()
	}
	if c.restored.After(now.Wall) {
		return time.Time{}
	}
	return c.restored
}

// Unproven reports whether a contact is stored that the clock of now cannot
// place: it lies ahead of it. LastContact is zero then, which is not never.
func (c *Contact) Unproven(now Instant) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lastLocked(now).IsZero() && !c.restored.IsZero()
}

// LastFailure is the newest failure, also one that contact has overtaken; its
// At is zero if there was none.
func (c *Contact) LastFailure() Failure {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failure
}

// Failures is the number of failures in a row since the last contact.
func (c *Contact) Failures() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failures
}

// Outage is the length of the outage that ended last, 0 if there was none.
func (c *Contact) Outage() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.outage
}

// Regained returns a channel that is closed when contact is regained next.
// Ask again afterwards.
func (c *Contact) Regained() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.regained == nil {
		c.regained = make(chan struct{})
	}
	return c.regained
}

// elapsed is the time from a to b, never negative: by the boot-time clock
// within one boot, else by the wall clock.
func elapsed(a, b Instant) time.Duration {
	if a.BootID == b.BootID && b.Boot >= a.Boot {
		return b.Boot - a.Boot
	}
	return max(b.Wall.Sub(a.Wall), 0)
}

const maxReason = 256

// line makes one printable line of a text that others wrote.
func line(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\u2028' || r == '\u2029' || r >= 0x80 && r <= 0x9f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > maxReason {
		s = strings.ToValidUTF8(s[:maxReason], "")
	}
	return s
}
