package lifecycle_test

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"postern/agent/lifecycle"
)

func TestRenewalIsDueFortyFiveDaysBeforeTheEndOrAtHalfLife(t *testing.T) {
	const day = lifecycle.Day
	for _, row := range []struct {
		name       string
		life       time.Duration
		base, wide time.Duration // due by NotBefore+base, and at most wide earlier
	}{
		{"90 days", 90 * day, 45 * day, 45 * day / 10},
		{"90 days, backdated by a minute", 90*day + time.Minute, 45*day + time.Minute, 45 * day / 10},
		{"90 days, less a second", 90*day - time.Second, 45*day - time.Second, 45 * day / 10},
		{"91 days: a day more or less counts as 90", 91 * day, 46 * day, 45 * day / 10},
		{"89 days", 89 * day, 44 * day, 45 * day / 10},
		{"88 days", 88 * day, 44 * day, 44 * day / 10},
		{"a day", day, 12 * time.Hour, 72 * time.Minute},
		{"an hour", time.Hour, 30 * time.Minute, 3 * time.Minute},
		{"100 years", 100 * 365 * day, 50 * 365 * day, 50 * 365 * day / 10},
		{"a nanosecond", 1, 0, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			latest := time.Duration(-1)
			for i := range 1000 {
				seed := fmt.Sprintf("device-%d/identity", i)
				at := lifecycle.RenewAt(born, born.Add(row.life), seed)
				since := at.Sub(born)
				if since > row.base || since < row.base-row.wide || since < 0 {
					t.Fatalf("%s: due %s after birth, want at most %s before %s", seed, since, row.wide, row.base)
				}
				if again := lifecycle.RenewAt(born, born.Add(row.life), seed); !again.Equal(at) {
					t.Fatalf("%s: due %s, then %s", seed, at, again)
				}
				latest = max(latest, since)
			}
			if latest < row.base-row.wide/100 {
				t.Errorf("the latest of 1000 is due %s after birth, want close to %s", latest, row.base)
			}
		})
	}
}

func TestACertificateThatNeverLivesIsDueAtOnce(t *testing.T) {
	for _, life := range []time.Duration{0, -time.Hour, math.MinInt64} {
		if at := lifecycle.RenewAt(born, born.Add(life), "x"); !at.Equal(born) {
			t.Errorf("life %s: due %s, want %s", life, at, born)
		}
	}
}

// A spread drawn anew at each look collapses to its early edge.
// Ours is stable, and even over its whole window.
func TestJitterIsEvenOverItsWindow(t *testing.T) {
	const agents, buckets = 20_000, 10
	window := 45 * lifecycle.Day / 10
	var count [buckets]int
	for i := range agents {
		early := born.Add(45 * lifecycle.Day).Sub(lifecycle.RenewAt(born, ends, fmt.Sprintf("gw-%05d", i)))
		count[int(early*buckets/window)]++
	}
	for i, n := range count {
		if n < agents/buckets*9/10 || n > agents/buckets*11/10 {
			t.Errorf("bucket %d of %d has %d of %d agents: %v", i, buckets, n, agents, count)
		}
	}
}

func TestBackoffKeepsItsFloorAndItsCaps(t *testing.T) {
	const day, most = lifecycle.Day, 1 - 1e-12
	for _, row := range []struct {
		attempt int
		left    time.Duration
		ceiling time.Duration
	}{
		{-5, 60 * day, time.Minute},
		{0, 60 * day, time.Minute},
		{1, 60 * day, time.Minute},
		{2, 60 * day, 2 * time.Minute},
		{5, 60 * day, 16 * time.Minute},
		{9, 60 * day, 256 * time.Minute},
		{10, 60 * day, 6 * time.Hour},
		{64, 60 * day, 6 * time.Hour},
		{math.MaxInt, 60 * day, 6 * time.Hour},
		{4, 7*day + 1, 8 * time.Minute},
		{9, 7 * day, 15 * time.Minute},
		{9, day + 1, 15 * time.Minute},
		{9, day, time.Minute},
		{9, 0, time.Minute},
		{9, -time.Hour, time.Minute},
	} {
		name := fmt.Sprintf("attempt %d, %s left", row.attempt, row.left)
		if got := lifecycle.Backoff(row.attempt, row.left, 0); got != 30*time.Second {
			t.Errorf("%s: least is %s, want the floor of 30s", name, got)
		}
		if got := lifecycle.Backoff(row.attempt, row.left, most); got > row.ceiling || got < row.ceiling-time.Millisecond {
			t.Errorf("%s: most is %s, want %s", name, got, row.ceiling)
		}
	}
}

func TestChanceThatIsNoneStillWaits(t *testing.T) {
	for _, r := range []float64{math.NaN(), math.Inf(-1), -1} {
		if got := lifecycle.Backoff(3, time.Hour, r); got != 30*time.Second {
			t.Errorf("chance %v: waits %s, want 30s", r, got)
		}
	}
	for _, r := range []float64{1, 7, math.Inf(1)} {
		if got := lifecycle.Spread(0, r); got != 10*time.Second {
			t.Errorf("chance %v: spreads over %s, want 10s", r, got)
		}
	}
}

func TestSpreadIsShortAfterAShortOutage(t *testing.T) {
	for _, row := range []struct {
		outage, most time.Duration
	}{
		{0, 10 * time.Second},
		{time.Hour - 1, 10 * time.Second},
		{time.Hour, time.Minute},
		{30 * lifecycle.Day, time.Minute},
	} {
		if lifecycle.Spread(row.outage, 0) != 0 || lifecycle.Spread(row.outage, 0.5) != row.most/2 || lifecycle.Spread(row.outage, 1) != row.most {
			t.Errorf("outage %s: spreads up to %s, want %s", row.outage, lifecycle.Spread(row.outage, 1), row.most)
		}
	}
}

func TestHeartbeatIsFiveMinutesTenPercentEitherWay(t *testing.T) {
	got := []time.Duration{lifecycle.Heartbeat(0), lifecycle.Heartbeat(0.5), lifecycle.Heartbeat(1)}
	want := []time.Duration{270 * time.Second, 300 * time.Second, 330 * time.Second}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestKeepWarmLeavesHalfALifeOrTenMinutes(t *testing.T) {
	for _, row := range []struct{ life, after time.Duration }{
		{24 * time.Hour, 12 * time.Hour},
		{2*time.Hour + 1, time.Hour},
		{2 * time.Hour, 110 * time.Minute},
		{time.Hour, 50 * time.Minute},
		{20 * time.Minute, 10 * time.Minute},
		{10 * time.Minute, 5 * time.Minute},
		{time.Minute, 30 * time.Second},
		{0, 0},
		{-time.Hour, 0},
	} {
		if got := lifecycle.KeepWarm(row.life); got != row.after {
			t.Errorf("life %s: refreshed after %s, want %s", row.life, got, row.after)
		}
	}
}

func TestWarningsComeAtThirtyFourteenSevenThreeAndOneDay(t *testing.T) {
	const day = lifecycle.Day
	for _, row := range []struct {
		left time.Duration
		days int
		next time.Duration // left at the next change
	}{
		{90 * day, 0, 30 * day},
		{30*day + 1, 0, 30 * day},
		{30 * day, 30, 14 * day},
		{20 * day, 30, 14 * day},
		{14 * day, 14, 7 * day},
		{7*day + 1, 14, 7 * day},
		{7 * day, 7, 3 * day},
		{3 * day, 3, day},
		{day + 1, 3, day},
		{day, 1, 0},
		{1, 1, 0},
	} {
		days, next := lifecycle.Warning(born, ends, ends.Add(-row.left))
		if days != row.days || !next.Equal(ends.Add(-row.next)) {
			t.Errorf("%s left: warning %d until %s, want %d until %s", row.left, days, next, row.days, ends.Add(-row.next))
		}
	}
	for _, over := range []time.Duration{0, time.Hour} {
		if days, next := lifecycle.Warning(born, ends, ends.Add(over)); days != 0 || !next.IsZero() {
			t.Errorf("%s after the end: warning %d until %s, want none for ever", over, days, next)
		}
	}
}

func TestAShortCertificateIsNotWarnedAboutBeforeItIsDue(t *testing.T) {
	const day = lifecycle.Day
	for _, row := range []struct {
		life, at time.Duration
		days     int
		next     time.Duration
	}{
		{time.Hour, time.Minute, 0, time.Hour},
		{time.Hour, 59 * time.Minute, 0, time.Hour},
		{10 * day, day, 0, 7 * day},
		{10 * day, 4 * day, 0, 7 * day},
		{10 * day, 7 * day, 3, 9 * day},
		{2 * day, day, 1, 2 * day},
	} {
		days, next := lifecycle.Warning(born, born.Add(row.life), born.Add(row.at))
		if days != row.days || !next.Equal(born.Add(row.next)) {
			t.Errorf("life %s at %s: warning %d until %s, want %d until %s", row.life, row.at, days, next.Sub(born), row.days, row.next)
		}
	}
}
