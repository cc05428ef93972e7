package lifecycle_test

import (
	"sync"
	"testing"
	"time"

	"postern/agent/lifecycle"
	"postern/platform"
)

// The reading of a platform is a Reading by plain conversion.
var _ = lifecycle.Reading(platform.Clock{})

func TestFloorIsTheLatestTimeThatHasCertainlyPassed(t *testing.T) {
	d := newDevice(born)
	persisted := built.Add(day)
	c := lifecycle.NewClock(lifecycle.ClockOptions{Source: d.read, Build: built, Floor: persisted})
	want := func(what string, floor time.Time) {
		t.Helper()
		if got := c.Floor(); !got.Equal(floor) || got.Location() != time.UTC {
			t.Errorf("%s: floor %s, want %s", what, got, floor)
		}
	}
	want("at start", persisted)
	c.Raise(built)
	want("an older time", persisted)
	c.Raise(persisted.Add(hour).In(time.FixedZone("", 3600)))
	want("own NotBefore", persisted.Add(hour))
	c.Observe(d.date())
	want("Date that agrees with our clock", born)
	c.Observe(time.Time{})
	want("no Date", born)
}

func TestASynchronisedKernelAloneDoesNotRaiseTheFloor(t *testing.T) {
	d := newDevice(born)
	c := d.clock()
	d.setWall(born.AddDate(14, 0, 0))
	d.synced = true // by a false time server
	c.Now()
	if got := c.Floor(); !got.Equal(built) {
		t.Errorf("floor %s: a false time server would leave the device with a floor in the future", got)
	}
}

func TestADateThatDisagreesDoesNotRaiseTheFloor(t *testing.T) {
	d := newDevice(born)
	c := d.clock()
	c.Observe(born.AddDate(14, 0, 0))
	if got := c.Floor(); !got.Equal(built) {
		t.Errorf("floor %s: an authority with a bad clock would lock out its devices", got)
	}
}

func TestAFloorInTheFutureIsLoweredByTheAuthority(t *testing.T) {
	d := newDevice(born)
	c := lifecycle.NewClock(lifecycle.ClockOptions{Source: d.read, Build: built, Floor: born.AddDate(73, 0, 0)})
	if c.Now().Trusted {
		t.Fatal("trusted below the floor")
	}
	c.Observe(d.date())
	if got := c.Floor(); !got.Equal(born) {
		t.Errorf("floor %s, want %s", got, born)
	}
	if now := c.Now(); !now.Trusted {
		t.Errorf("still not trusted: %s", now.Reason)
	}
}

func TestTheFloorNeverSinksBelowTheBuild(t *testing.T) {
	d := newDevice(born)
	c := lifecycle.NewClock(lifecycle.ClockOptions{Source: d.read, Build: built, Floor: born})
	c.Observe(built.Add(-time.Minute)) // within tolerance of the build
	if got := c.Floor(); !got.Equal(built) {
		t.Errorf("floor %s, want %s", got, built)
	}
	c.Raise(born)
	c.Observe(built.AddDate(-10, 0, 0)) // not credible at all
	if got := c.Floor(); !got.Equal(born) {
		t.Errorf("floor %s, want %s", got, born)
	}
}

func TestOffsetFollowsStepsOfOurOwnClock(t *testing.T) {
	d := newDevice(born)
	c := d.clock()
	want := func(what string, offset time.Duration) {
		t.Helper()
		if got := c.Offset(); got != offset {
			t.Errorf("%s: offset %s, want %s", what, got, offset)
		}
	}
	want("never heard", 0)
	d.step(-3 * hour)
	c.Observe(d.truth)
	want("three hours behind", 3*hour)
	d.pass(10 * day)
	want("ten days on", 3*hour)
	c.Observe(time.Time{})
	want("an answer without Date", 3*hour)
	d.step(3 * hour)
	want("put right", 0)
	d.step(time.Minute)
	want("a minute ahead", -time.Minute)
	d.reboot()
	want("rebooted: nothing is known", 0)
}

func TestOffsetIsLearntAlsoFromAnAuthorityThatIsNotBelieved(t *testing.T) {
	d := newDevice(born)
	c := d.clock()
	c.Observe(d.truth.AddDate(-6, 0, 0))
	if got, want := c.Offset(), d.truth.AddDate(-6, 0, 0).Sub(d.truth); got != want {
		t.Errorf("offset %s, want %s: its assertions are dated by its clock", got, want)
	}
}

func TestChainsAreVerifiedAtTheWallClockOnlyIfItIsTrusted(t *testing.T) {
	floor := born.Add(-day)
	for _, row := range []struct {
		name string
		wall time.Time
		sync bool
		want time.Time
	}{
		{"trusted", born, true, born},
		{"1970", time.Unix(0, 0), false, floor},
		{"before the floor, though synchronised", floor.Add(-hour), true, floor},
		{"not confirmed", born, false, born},
		{"2106", born.AddDate(80, 0, 0), false, born.AddDate(80, 0, 0)},
	} {
		d := newDevice(born)
		d.setWall(row.wall)
		d.synced = row.sync
		c := lifecycle.NewClock(lifecycle.ClockOptions{Source: d.read, Build: built, Floor: floor})
		if got := c.VerifyTime(); !got.Equal(row.want) || got.Location() != time.UTC {
			t.Errorf("%s: verifies at %s, want %s", row.name, got, row.want)
		}
	}
}

func TestTheSecondChanceOfAChainNeverGoesBelowTheFloor(t *testing.T) {
	floor := born.Add(-60 * day)
	renewed := born.Add(-10 * day) // the authority's certificate, while we were off
	for _, row := range []struct {
		name      string
		wall      time.Time
		sync      bool
		notBefore []time.Time
		want      time.Time
	}{
		{"trusted: no second chance", born, true, []time.Time{born.AddDate(20, 0, 0)}, born},
		{"1970, authority renewed", time.Unix(0, 0), false, []time.Time{renewed, built}, renewed},
		{"2106, authority renewed", born.AddDate(80, 0, 0), false, []time.Time{built, renewed}, renewed},
		{"2106, old certificates", born.AddDate(80, 0, 0), false, []time.Time{built}, floor},
		{"no certificates", born, false, nil, floor},
	} {
		d := newDevice(born)
		d.setWall(row.wall)
		d.synced = row.sync
		c := lifecycle.NewClock(lifecycle.ClockOptions{Source: d.read, Build: built, Floor: floor})
		if got := c.VerifyAt(row.notBefore...); !got.Equal(row.want) {
			t.Errorf("%s: verifies at %s, want %s", row.name, got, row.want)
		}
	}
}

func TestClockIsSafeForConcurrentUse(t *testing.T) {
	d := newDevice(born)
	c := lifecycle.NewClock(lifecycle.ClockOptions{Source: func() lifecycle.Reading { return d.read() }, Build: built})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 200 {
				c.Observe(born)
				c.Raise(built)
				_, _, _, _ = c.Now(), c.Floor(), c.Offset(), c.VerifyTime()
				_ = c.VerifyAt(built)
			}
		})
	}
	all.Wait()
	if now := c.Now(); !now.Trusted {
		t.Errorf("not trusted: %s", now.Reason)
	}
}

func BenchmarkClockNow(b *testing.B) {
	d := newDevice(born)
	c := d.clock()
	c.Observe(d.date())
	b.ReportAllocs()
	for b.Loop() {
		c.Now()
	}
}
