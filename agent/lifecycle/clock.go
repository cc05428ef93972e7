package lifecycle

import (
	"sync"
	"time"
)

// ClockOptions say where a Clock reads and what it knows at the start.
type ClockOptions struct {
	Source  func() Reading // reads the device's clocks; called under the Clock's lock, so it must be quick
	Build   time.Time      // when this program was made; zero if unknown
	Floor   time.Time      // the persisted floor; zero if there is none
	Vouched bool           // configuration says clock = "trusted"
	// Anchor is what an earlier process of this boot returned from Anchor: a
	// restart does not forget that the clock was confirmed. One of another boot
	// counts for nothing. Zero if there is none.
	Anchor Mark
}

// Clock is the wall clock with its verdict, for the whole agent: the only
// source of wall time outside the platform rooms. It keeps no time of its own
// and never sets the system's. Safe for concurrent use.
type Clock struct {
	source func() Reading
	mu     sync.Mutex
	state  ClockState // guarded by mu
}

// NewClock returns a clock over o.Source, which must not be nil.
func NewClock(o ClockOptions) *Clock {
	return &Clock{
		source: o.Source,
		state:  ClockState{Vouched: o.Vouched, Build: o.Build, Floor: o.Floor, Anchor: o.Anchor, Confirmed: !o.Anchor.Wall.IsZero()},
	}
}

// Now reads the clocks and judges them.
func (c *Clock) Now() Instant {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now()
}

func (c *Clock) now() Instant {
	state, now := Judge(c.state, c.source())
	c.state = state
	return now
}

// Raise lifts the floor to t if it is higher: evidence that t has passed, from
// somebody who was believed then (NotBefore of the own certificate, the issue
// of a stored token under a trusted clock).
func (c *Clock) Raise(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state.Floor = later(c.state.Floor, t.Round(0).UTC())
}

// Observe takes in the Date of an answer that the authority gave just now over
// verified TLS, and judges anew. It may make the clock trusted, lower a floor
// that lies in the future, and it renews the offset. A zero date does nothing.
func (c *Clock) Observe(date time.Time) {
	if date.IsZero() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.source()
	r.Wall = r.Wall.Round(0).UTC()
	c.state, _ = Judge(c.state.see(date, r), r)
}

// Anchor is the newest reading of this boot that the kernel or the authority
// stood for; zero if there is none. Stored, it lets the next process of the
// same boot believe a clock that went on in step.
func (c *Clock) Anchor() Mark {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.state.Anchor.at(c.source()); !ok || !c.state.Confirmed {
		return Mark{}
	}
	return c.state.Anchor
}

// Floor is a time that has certainly passed, UTC; zero if nothing is known.
// Store it at most once an hour, with other writes.
func (c *Clock) Floor() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.floor().UTC()
}

// Offset is the authority's time minus our wall clock now, 0 if the authority
// has not been heard since the device started. It follows steps of our own
// clock. Assertions are dated by wall clock plus offset.
func (c *Clock) Offset() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.source()
	want, ok := c.state.Authority.at(r)
	if !ok {
		return 0
	}
	return want.Sub(r.Wall.Round(0))
}

// VerifyTime is the time at which certificate chains are checked: the wall
// clock if it is trusted, else the later of wall clock and floor, and then
// with pinned roots only.
func (c *Clock) VerifyTime() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if now.Trusted {
		return now.Wall
	}
	return later(now.Wall, c.state.floor()).UTC()
}

// VerifyAt is the second chance of a chain that failed at VerifyTime because
// of a date, when the clock is not trusted: a board that boots in 2106, or one
// that was off while the authority renewed its certificate, could otherwise
// never learn the time. notBefore are those of the chain; the answer is the
// earliest time that has not certainly passed at which all of them have begun.
// A certificate that ended before the floor stays refused. With a trusted
// clock there is no second chance: the wall clock.
func (c *Clock) VerifyAt(notBefore ...time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if now.Trusted {
		return now.Wall
	}
	at := c.state.floor()
	for _, t := range notBefore {
		at = later(at, t)
	}
	return at.UTC()
}
