//go:build linux

package linux

import (
	"testing"
	"time"
)

// TestCarriedClockFollowsTheFullReading: a reading that was carried on for a
// while says the same as one that asks the kernel.
func TestCarriedClockFollowsTheFullReading(t *testing.T) {
	h, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	first := h.Clock()
	for range 1000 {
		carried, full := h.Clock(), h.readClock()
		if off := (full.Boot - carried.Boot) - full.Wall.Sub(carried.Wall); off.Abs() > 50*time.Millisecond { // a busy machine may take its time between two readings
			t.Fatalf("the boot clock is %v off the wall clock", off)
		}
		if carried.Boot < first.Boot || carried.BootID != full.BootID || carried.Synchronised != full.Synchronised {
			t.Fatalf("carried %+v, full %+v", carried, full)
		}
	}
}

// TestClockStepIsSeenAtOnce: the wall clock and the monotonic clock part when
// somebody sets the time or the device slept; no carried reading may hide it.
func TestClockStepIsSeenAtOnce(t *testing.T) {
	h, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	h.Clock()
	stale := *h.lastClock.Load()
	stale.wall = stale.wall.Add(-time.Hour) // the wall clock was set forward since
	stale.clock.Boot += time.Minute         // which shows whether this reading was carried on
	h.lastClock.Store(&stale)
	if got, full := h.Clock(), h.readClock(); (full.Boot - got.Boot).Abs() > time.Second {
		t.Errorf("boot clock %v, want about %v", got.Boot, full.Boot)
	}
}
