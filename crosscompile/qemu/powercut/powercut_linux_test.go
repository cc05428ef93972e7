//go:build linux

package powercut

import (
	"fmt"
	"testing"
	"time"
)

// amount is how much of something a tier does.
func amount(short, long int) int {
	switch {
	case *points > 0:
		return *points
	case full():
		return long
	}
	return short
}

func (r recording) report(t *testing.T, s tally) {
	t.Helper()
	flushes := 0
	for _, e := range r.log.Entries {
		if e.Flags&Flush != 0 {
			flushes++
		}
	}
	t.Logf("%s %s: %d points of %d entries, %d flushes, %d acknowledged; %d bad (%d of them without an identity), %d with litter, %d too slow, %d restored from the backup copy, %d caches made anew %v; %s a point",
		r.fs, r.options, s.Points, len(r.log.Entries), flushes, len(r.marks), s.Bad, s.Gone, s.Littered, s.Late, s.Restored, s.Rebuilt, s.During,
		(s.Took / time.Duration(max(1, s.Points))).Round(time.Millisecond))
	for _, line := range s.First {
		t.Log(line)
	}
}

// holds fails the test for every point at which something is lost.
func (r recording) holds(t *testing.T, n int) {
	t.Helper()
	s := r.cuts(t, r.choose(n, *seed), Cut{Seed: *seed}, 1)
	r.report(t, s)
	if s.Bad > 0 {
		t.Errorf("%d of %d points lost something; to see one again, with its point and seed: -powercut.from %s -powercut.point N -powercut.seed S", s.Bad, s.Points, r.dir)
	}
}

// breaks fails the test if nothing is lost: then the harness finds no fault.
func (r recording) breaks(t *testing.T, n int, cut Cut) {
	t.Helper()
	s := r.cuts(t, r.choose(n, cut.Seed), cut, 0)
	r.report(t, s)
	if s.Bad == 0 {
		t.Error("no point is bad although the fault is planted: the harness is broken")
	}
}

func TestPowerCutLosesNothingAcknowledged(t *testing.T) {
	needs(t, "short")
	r := record(t, machine{fs: "ext4"}, uint64(amount(50, 300)))
	t.Run("ext4", func(t *testing.T) { r.holds(t, amount(100, 1000)) })
	writes := []int{64}
	if full() {
		writes = []int{4, 16, 64}
	}
	for _, deaf := range writes {
		t.Run(fmt.Sprintf("a disk that is deaf to flushes and keeps %d writes to itself loses", deaf), func(t *testing.T) {
			r.breaks(t, amount(10, 100), Cut{Seed: *seed, Deaf: deaf})
		})
	}
}

func TestPowerCutFindsASyncThatIsMissing(t *testing.T) {
	needs(t, "short")
	r := record(t, machine{fs: "ext4", noSync: true}, uint64(amount(30, 100)))
	r.breaks(t, amount(20, 100), Cut{Seed: *seed})
}

// With data=writeback a file's data may reach the medium after its metadata:
// only what the store itself syncs is in order.
func TestPowerCutLosesNothingWithWriteback(t *testing.T) {
	needs(t, "full")
	r := record(t, machine{fs: "ext4", options: "data=writeback"}, uint64(amount(50, 150)))
	r.holds(t, amount(100, 300))
}
