package lifecycle_test

import (
	"strings"
	"testing"
	"time"

	"postern/agent/lifecycle"
)

const (
	hour = time.Hour
	day  = lifecycle.Day
)

// judged is one look at the clock in a story.
type judged struct {
	what    string
	do      func(d *device, c *lifecycle.Clock)
	trusted bool
	reason  string // part of it
}

func TestClockStories(t *testing.T) {
	y1970, y2106 := time.Unix(90, 0).UTC(), time.Date(2106, 2, 7, 0, 0, 0, 0, time.UTC)
	observe := func(d *device, c *lifecycle.Clock) { c.Observe(d.date()) }
	pass := func(t time.Duration) func(*device, *lifecycle.Clock) {
		return func(d *device, _ *lifecycle.Clock) { d.pass(t) }
	}
	step := func(t time.Duration) func(*device, *lifecycle.Clock) {
		return func(d *device, _ *lifecycle.Clock) { d.step(t) }
	}
	sync := func(d *device, _ *lifecycle.Clock) { d.synchronise() }
	unsync := func(d *device, _ *lifecycle.Clock) { d.synced = false }
	wall := func(t time.Time) func(*device, *lifecycle.Clock) {
		return func(d *device, _ *lifecycle.Clock) { d.setWall(t) }
	}
	none := func(*device, *lifecycle.Clock) {}
	for _, story := range []struct {
		name    string
		vouched bool
		looks   []judged
	}{
		{"no source at all", false, []judged{
			{"at start", none, false, "not synchronised"},
			{"after a day", pass(day), false, "not synchronised"},
		}},
		{"boot in 1970, time server late, then a step of decades (CK1, CK4)", false, []judged{
			{"at boot", wall(y1970), false, "before 2026-06-01"},
			{"ten minutes on", pass(10 * time.Minute), false, "before"},
			{"synchronised", sync, true, "kernel synchronised"},
			{"an hour on", pass(hour), true, "kernel synchronised"},
		}},
		{"boot in 2106 (CK1)", false, []judged{
			{"at boot", wall(y2106), false, "not synchronised"},
			{"the authority disagrees", observe, false, "ahead of the authority"},
			{"put right", wall(born), true, "agrees with the authority"},
		}},
		{"the authority confirms a clock that no server steers", false, []judged{
			{"at start", none, false, "not synchronised"},
			{"Date agrees", observe, true, "agrees with the authority"},
			{"60 days offline", pass(60 * day), true, "agrees with the authority"},
		}},
		{"five minutes are agreement, more is not", false, []judged{
			{"5 min ahead", step(5*time.Minute - time.Second), false, "not synchronised"},
			{"observed", observe, true, "agrees"},
			{"20 min ahead", step(15 * time.Minute), false, "not synchronised"},
			{"observed again", observe, false, "not synchronised"},
			{"put right", step(-20 * time.Minute), true, "agrees"},
		}},
		{"the time server goes with the link, the kernel forgets within hours", false, []judged{
			{"synchronised", sync, true, "kernel synchronised"},
			{"nine hours on, unsynchronised", func(d *device, _ *lifecycle.Clock) { d.pass(9 * hour); d.synced = false }, true, "in step"},
			{"60 days on", pass(60 * day), true, "in step"},
			{"set by hand 10 min ahead", step(10 * time.Minute), false, "not synchronised"},
			{"and back", step(-10 * time.Minute), true, "in step"},
		}},
		{"small steps do not add up to trust", false, []judged{
			{"confirmed", observe, true, "agrees"},
			{"+4 min", step(4 * time.Minute), true, "agrees"},
			{"+4 min", step(4 * time.Minute), true, "in step"},
			{"+4 min", step(4 * time.Minute), false, "not synchronised"},
		}},
		{"step of a day while running, confirmed before (CK2)", false, []judged{
			{"confirmed", observe, true, "agrees"},
			{"a day ahead", step(day), false, "ahead of the authority"},
			{"back", step(-day), true, "agrees"},
			{"a day behind", step(-day), false, "before"},
		}},
		{"a vouched clock is believed", true, []judged{
			{"at start", none, true, "vouched"},
			{"a year on", pass(365 * day), true, "vouched"},
			{"set back by hand", step(-10 * day), true, "vouched"},
		}},
		{"a vouched clock that jumps a day ahead needs a second source", true, []judged{
			{"at start", none, true, "vouched"},
			{"23 h ahead", step(23 * hour), true, "vouched"},
			{"one hour more: the jumps add up", step(hour), false, "jumped"},
			{"an hour later still", pass(hour), false, "jumped"},
			{"the authority agrees with it", func(d *device, c *lifecycle.Clock) { c.Observe(d.date().Add(d.off)) }, true, "agrees"},
		}},
		{"a vouched clock whose jump the kernel stands for", true, []judged{
			{"at start", wall(born.Add(-100 * day)), true, "vouched"},
			{"synchronised", sync, true, "kernel synchronised"},
			{"unsynchronised again", unsync, true, "in step"},
		}},
		{"a real-time clock that is read late, after 1970", true, []judged{
			{"at boot", wall(y1970), false, "before"},
			{"driver loaded", wall(born), true, "vouched"},
		}},
		{"a vouched clock below the floor is not believed", true, []judged{
			{"battery flat", wall(y1970), false, "before"},
		}},
		{"a false time server steps a running device to 2040 and 1970 (T23)", false, []judged{
			{"confirmed", observe, true, "agrees"},
			{"2040, synchronised", func(d *device, _ *lifecycle.Clock) { d.step(14 * 365 * day); d.synced = true }, false, "ahead of the authority"},
			{"1970, synchronised", func(d *device, _ *lifecycle.Clock) { d.setWall(y1970); d.synced = true }, false, "before"},
			{"the truth", sync, true, "agrees"},
		}},
		{"an odd Date of the authority does not shake a synchronised kernel", false, []judged{
			{"synchronised", sync, true, "kernel"},
			{"Date 10 min off", func(d *device, c *lifecycle.Clock) { c.Observe(d.date().Add(10 * time.Minute)) }, true, "kernel"},
			{"unsynchronised", unsync, true, "in step"},
			{"Date right again", observe, true, "agrees"},
		}},
		{"an authority whose clock lies before the program was made is not believed", false, []judged{
			{"synchronised", sync, true, "kernel"},
			{"Date in 2020", func(_ *device, c *lifecycle.Clock) { c.Observe(born.AddDate(-6, 0, 0)) }, true, "kernel"},
		}},
		{"a reboot forgets what was confirmed", false, []judged{
			{"confirmed", observe, true, "agrees"},
			{"rebooted", func(d *device, _ *lifecycle.Clock) { d.reboot() }, false, "not synchronised"},
			{"confirmed again", observe, true, "agrees"},
		}},
		{"a reboot forgets a jump, of a vouched clock", true, []judged{
			{"at start", none, true, "vouched"},
			{"jumped", step(30 * day), false, "jumped"},
			{"rebooted", func(d *device, _ *lifecycle.Clock) { d.reboot() }, true, "vouched"},
		}},
		{"a boot clock that runs backwards proves nothing", false, []judged{
			{"three days after boot", pass(3 * day), false, "not synchronised"},
			{"confirmed", observe, true, "agrees"},
			{"boot clock back", func(d *device, _ *lifecycle.Clock) { d.booted = d.truth }, false, "not synchronised"},
			{"synchronised", sync, true, "kernel"},
		}},
		{"suspend is no jump (CK3)", false, []judged{
			{"confirmed", observe, true, "agrees"},
			{"resumed", pass(12 * hour), true, "agrees"},
		}},
	} {
		t.Run(story.name, func(t *testing.T) {
			d := newDevice(born)
			c := d.clockWith(story.vouched)
			for _, look := range story.looks {
				look.do(d, c)
				got := c.Now()
				if got.Trusted != look.trusted || !strings.Contains(got.Reason, look.reason) {
					t.Fatalf("%s: trusted %v because %q; want %v because of %q", look.what, got.Trusted, got.Reason, look.trusted, look.reason)
				}
				d.pass(time.Second)
			}
		})
	}
}

func TestJudgeIsPure(t *testing.T) {
	d := newDevice(born)
	d.synchronise()
	state := lifecycle.ClockState{Build: built}
	before := state
	next, first := lifecycle.Judge(state, d.read())
	if state != before {
		t.Error("the state that went in was changed")
	}
	again, second := lifecycle.Judge(before, d.read())
	if next != again || first != second {
		t.Errorf("same reading, two verdicts: %+v and %+v", first, second)
	}
}

func TestWallIsUTCWithoutMonotonicPart(t *testing.T) {
	zone := time.FixedZone("plant", 9*3600)
	_, now := lifecycle.Judge(lifecycle.ClockState{}, lifecycle.Reading{Wall: born.In(zone), Synchronised: true})
	if now.Wall != born { // == sees zone and monotonic part
		t.Errorf("got %v, want %v", now.Wall, born)
	}
}

func TestReasonSaysHowFarTheClockIsOff(t *testing.T) {
	d := newDevice(born)
	c := d.vouchedFor()
	c.Observe(d.date())
	d.step(49*hour + 10*time.Second)
	if got := c.Now().Reason; got != "49h0m0s ahead of the authority's" {
		t.Errorf("got %q", got)
	}
	d.step(-98 * hour)
	if got := c.Now().Reason; !strings.HasPrefix(got, "before 2026-11-20 09:00") {
		t.Errorf("got %q", got)
	}
}

func TestAnAnchorThatTheAuthorityTookBackDoesNotSurviveARestart(t *testing.T) {
	d := newDevice(born)
	d.step(60 * day)
	c := d.clock()
	c.Observe(d.date().Add(60 * day)) // an authority as wrong as we are
	if now := c.Now(); !now.Trusted || c.Anchor().Wall.IsZero() {
		t.Fatalf("not trusted: %s", now.Reason)
	}
	c.Observe(d.date()) // and put right
	if now, anchor := c.Now(), c.Anchor(); now.Trusted || !anchor.Wall.IsZero() {
		t.Errorf("trusted %v (%s), anchor %s", now.Trusted, now.Reason, anchor.Wall)
	}
}

func TestAnAnchorOfAnotherBootIsNotHandedOn(t *testing.T) {
	d := newDevice(born)
	c := d.clock()
	c.Observe(d.date())
	anchor := c.Anchor()
	d.reboot()
	next := lifecycle.NewClock(lifecycle.ClockOptions{Source: d.read, Anchor: anchor})
	if got := next.Anchor(); got != (lifecycle.Mark{}) {
		t.Errorf("got %+v", got)
	}
}

// TestRestartOfTheProcessKeepsAConfirmedClock: an agent that is restarted while
// the link is down, on a machine whose kernel never heard of a time server,
// must not forget what the authority confirmed a minute ago.
func TestRestartOfTheProcessKeepsAConfirmedClock(t *testing.T) {
	start := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	r := lifecycle.Reading{Wall: start, Boot: time.Hour, BootID: "a"}
	source := func() lifecycle.Reading { return r }
	first := lifecycle.NewClock(lifecycle.ClockOptions{Source: source})
	if first.Now().Trusted || !first.Anchor().Wall.IsZero() {
		t.Fatal("nobody confirmed this clock")
	}
	first.Observe(start)
	anchor := first.Anchor()
	for _, c := range []struct {
		name    string
		reading lifecycle.Reading
		trusted bool
	}{
		{"in step, same boot", lifecycle.Reading{Wall: start.Add(time.Minute), Boot: time.Hour + time.Minute, BootID: "a"}, true},
		{"stepped back an hour", lifecycle.Reading{Wall: start.Add(-time.Hour), Boot: time.Hour + time.Minute, BootID: "a"}, false},
		{"stepped forward a day", lifecycle.Reading{Wall: start.Add(25 * time.Hour), Boot: time.Hour + time.Minute, BootID: "a"}, false},
		{"another boot", lifecycle.Reading{Wall: start.Add(time.Minute), Boot: time.Minute, BootID: "b"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			clock := lifecycle.NewClock(lifecycle.ClockOptions{Source: func() lifecycle.Reading { return c.reading }, Anchor: anchor})
			if got := clock.Now(); got.Trusted != c.trusted {
				t.Errorf("trusted is %v (%s), want %v", got.Trusted, got.Reason, c.trusted)
			}
		})
	}
}
