package authoritytest

import (
	"sync"
	"time"

	"postern/agent/lifecycle"
)

// Time is a pair of clocks that a test sets: it goes on with time.Now (also
// that of a synctest bubble) from where it was put. Safe for concurrent use.
type Time struct {
	mu     sync.Mutex
	start  time.Time
	offset time.Duration
	slept  time.Duration
	synced bool
}

// NewTime is synchronised and right.
func NewTime() *Time { return &Time{start: time.Now(), synced: true} }

// Step moves the wall clock.
func (t *Time) Step(by time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.offset += by
}

// Suspend lets the device sleep: wall and boot-time clock go on, timers do not.
func (t *Time) Suspend(by time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.offset += by
	t.slept += by
}

// Doubt makes the kernel say that nothing steers the clock.
func (t *Time) Doubt() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.synced = false
}

// Reading fits lifecycle.ClockOptions.Source.
func (t *Time) Reading() lifecycle.Reading {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	return lifecycle.Reading{
		Wall: now.Add(t.offset).Round(0).UTC(), Boot: time.Minute + now.Sub(t.start) + t.slept,
		BootID: "boot", Synchronised: t.synced,
	}
}

// Clock is a lifecycle.Clock over t.
func (t *Time) Clock() *lifecycle.Clock {
	return lifecycle.NewClock(lifecycle.ClockOptions{Source: t.Reading})
}
