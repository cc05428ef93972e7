package lifecycle

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Loops that fall asleep at different times wake at the same one.
func TestLoopsWakeTogetherWithin30Seconds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		boot := time.Duration(rapid.Int64Range(-int64(time.Hour), int64(400*Day)).Draw(t, "boot"))
		wait := UntilTick(boot, Tick)
		if wait <= 0 || wait > Tick {
			t.Fatalf("a sleep of %v", wait)
		}
		if (boot+wait)%Tick != 0 {
			t.Fatalf("wakes at %v", boot+wait)
		}
		later := time.Duration(rapid.Int64Range(0, int64(wait)-1).Draw(t, "later"))
		if other := boot + later + UntilTick(boot+later, Tick); other != boot+wait {
			t.Fatalf("one loop wakes at %v, the other at %v", boot+wait, other)
		}
	})
}

func TestTickIs30Seconds(t *testing.T) {
	for boot, want := range map[time.Duration]time.Duration{
		0:                        30 * time.Second,
		time.Nanosecond:          30*time.Second - 1,
		29 * time.Second:         time.Second,
		30 * time.Second:         30 * time.Second,
		-time.Second:             time.Second,
		100*Day + 31*time.Second: 29 * time.Second,
	} {
		if got := UntilTick(boot, Tick); got != want {
			t.Errorf("%v: got %v, want %v", boot, got, want)
		}
	}
}
