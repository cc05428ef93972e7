package lifecycle

import "time"

// Tick is the longest sleep of a loop: clocks step, and timers stop in suspend.
const Tick = 30 * time.Second

// UntilTick is how long a loop that has nothing else to wait for sleeps at
// boot, the time since boot, suspend included: until the next multiple of every,
// which is Tick or less, so more than 0 and at most every. All loops of the
// agent then wake at the same instant, and an idle processor wakes once for
// them instead of once for each. every must be positive.
func UntilTick(boot, every time.Duration) time.Duration {
	into := boot % every
	if into < 0 {
		into += every
	}
	return every - into
}
