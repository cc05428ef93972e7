package challenge

import (
	"sync/atomic"
	"time"
)

// age is the time since the keeper was made, by the monotonic clock, which is
// cheap to read but stops in suspend, plus what was slept. A step of the wall
// clock changes nothing.
type age struct {
	start time.Time
	boot  func() time.Duration
	first time.Duration // boot at start
	slept *atomic.Int64 // nanoseconds
}

func newAge(boot func() time.Duration) age {
	return age{start: time.Now(), boot: boot, first: boot(), slept: new(atomic.Int64)}
}

// now is the age; it never runs backwards.
func (a age) now() time.Duration {
	return time.Since(a.start) + time.Duration(a.slept.Load())
}

// wake takes in what was slept since the last call. The clocks are not read at
// the same instant, so that less than a second is not believed.
func (a age) wake() {
	awake := time.Since(a.start)
	slept := a.boot() - a.first - awake
	if slept-time.Duration(a.slept.Load()) >= time.Second {
		a.slept.Store(int64(slept))
	}
}
