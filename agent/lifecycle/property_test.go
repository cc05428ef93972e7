package lifecycle_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"postern/agent/lifecycle"
)

// anyTime is an instant from 1970 to 2106, with nanoseconds.
func anyTime(label string) *rapid.Generator[time.Time] {
	return rapid.Custom(func(t *rapid.T) time.Time {
		return time.Unix(rapid.Int64Range(0, 1<<32).Draw(t, label), rapid.Int64Range(0, 1e9-1).Draw(t, label+" ns")).UTC()
	})
}

// maybe is a time or none.
func maybe(t *rapid.T, label string) time.Time {
	if rapid.Bool().Draw(t, "no "+label) {
		return time.Time{}
	}
	return anyTime(label).Draw(t, label)
}

func anyFacts(t *rapid.T) lifecycle.Facts {
	return lifecycle.Facts{
		Damaged:      rapid.SampledFrom([]string{"", "", "", "key unreadable"}).Draw(t, "damaged"),
		Enrolled:     rapid.IntRange(0, 9).Draw(t, "enrolled") > 0,
		Moved:        rapid.IntRange(0, 9).Draw(t, "moved") == 0,
		RejectedAt:   rapid.SampledFrom([]time.Time{{}, {}, {}, born}).Draw(t, "rejected"),
		NotBefore:    maybe(t, "not before"),
		NotAfter:     maybe(t, "not after"),
		LastContact:  maybe(t, "last contact"),
		OfflineAfter: time.Duration(rapid.Int64Range(-1e9, 100*int64(day)).Draw(t, "offline after")),
		ClockTrusted: rapid.IntRange(0, 3).Draw(t, "trusted") > 0,
	}
}

// rank orders the states as time alone can run through them.
func rank(s lifecycle.State) int {
	switch s {
	case lifecycle.Connected:
		return 1
	case lifecycle.Offline:
		return 2
	case lifecycle.Expired:
		return 3
	}
	return 0
}

func TestDeriveIsTotalAndUntilIsTheNextChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, now := anyFacts(t), anyTime("now").Draw(t, "now")
		state, _ := lifecycle.Derive(f, now)
		if _, err := state.MarshalText(); err != nil {
			t.Fatal(err)
		}
		if want := expected(f, now); state != want {
			t.Fatalf("got %s, want %s", state, want)
		}
		checkUntil(t, "", f, now)
	})
}

func TestWhileFactsStandTimeOnlyTakesAway(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := anyFacts(t)
		a, b := anyTime("a").Draw(t, "a"), anyTime("b").Draw(t, "b")
		if b.Before(a) {
			a, b = b, a
		}
		early, _ := lifecycle.Derive(f, a)
		late, _ := lifecycle.Derive(f, b)
		if (rank(early) == 0 || rank(late) == 0) && early != late || rank(late) < rank(early) {
			t.Fatalf("%s at %s, %s at %s", early, a, late, b)
		}
	})
}

func TestNothingExpiresUnderAnUntrustedClock(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, now := anyFacts(t), anyTime("now").Draw(t, "now")
		f.ClockTrusted = false
		if state, until := lifecycle.Derive(f, now); state == lifecycle.Expired || !until.IsZero() {
			t.Fatalf("%s until %s", state, until)
		}
	})
}

func TestRenewalLiesInTheSecondPartOfALifeAndLeavesTimeToRepeat(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nb := anyTime("not before").Draw(t, "not before")
		life := time.Duration(rapid.Int64Range(1, 100*365*int64(day)).Draw(t, "life"))
		na := nb.Add(life)
		at := lifecycle.RenewAt(nb, na, rapid.String().Draw(t, "seed"))
		if at.Before(nb.Add(life*4/10)) || at.After(nb.Add(life/2+day)) || !at.Before(na) {
			t.Fatalf("due %s after birth of a life of %s", at.Sub(nb), life)
		}
	})
}

func TestEveryWaitKeepsTheFloorAndRisesWithAttempts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		attempt := rapid.IntRange(-2, 200).Draw(t, "attempt")
		left := time.Duration(rapid.Int64Range(-int64(day), 90*int64(day)).Draw(t, "left"))
		r := rapid.Float64Range(0, 1).Draw(t, "r")
		wait := lifecycle.Backoff(attempt, left, r)
		if wait < 30*time.Second || wait > 6*time.Hour {
			t.Fatalf("waits %s", wait)
		}
		if next := lifecycle.Backoff(attempt+1, left, r); next < wait {
			t.Fatalf("waits %s, then %s", wait, next)
		}
		if hurried := lifecycle.Backoff(attempt, left-7*day, r); hurried > wait {
			t.Fatalf("waits %s, but %s with less to live", wait, hurried)
		}
	})
}

func TestRemainingIsNeverLongerThanEitherClockThatCounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		issued := anyTime("issued").Draw(t, "issued")
		life := time.Duration(rapid.Int64Range(1, int64(25*hour)).Draw(t, "life"))
		boot := time.Duration(rapid.Int64Range(0, 400*int64(day)).Draw(t, "boot"))
		passed := time.Duration(rapid.Int64Range(-int64(hour), int64(26*hour)).Draw(t, "passed"))
		now := lifecycle.Instant{
			Wall: anyTime("wall").Draw(t, "wall"), Boot: boot + passed,
			BootID: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "boot id"), Trusted: rapid.Bool().Draw(t, "trusted"),
		}
		trusted := rapid.Bool().Draw(t, "issued trusted")
		left, proven := lifecycle.Remaining(issued, issued.Add(life), boot, "a", now, trusted)
		sameBoot := now.BootID == "a" && passed >= 0
		byWall := trusted && now.Trusted
		switch {
		case left < 0 || left > life:
			t.Fatalf("%s left of %s", left, life)
		case sameBoot && left > max(life-passed, 0):
			t.Fatalf("%s left after %s of %s", left, passed, life)
		case byWall && left > max(issued.Add(life).Sub(now.Wall), 0):
			t.Fatalf("%s left, the wall clock says %s", left, issued.Add(life).Sub(now.Wall))
		case proven != (sameBoot || byWall):
			t.Fatalf("proven %v", proven)
		}
	})
}

func TestHardwareIsTheSameAsItselfAndNotAsNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		facts := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z]{1,8}(-id)?=[0-9a-f]{4}`), 1, 8, rapid.ID).Draw(t, "facts")
		if !lifecycle.SameHardware(facts, facts) {
			t.Fatal("not the same as itself")
		}
		if lifecycle.SameHardware(facts, nil) {
			t.Fatal("the same as nothing")
		}
	})
}
