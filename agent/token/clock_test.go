package token

import (
	"testing"
	"time"

	"postern/agent/lifecycle"
)

// firmware-notes/faults.md, CK1: boot in 1970 or 2106, without a network.
func TestCK1UntrustedClockServesWhatBootTimeProves(t *testing.T) {
	for name, year := range map[string]time.Duration{"1970": -30 * 365 * 24 * time.Hour, "2106": 106 * 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t)
				w.ids.judged = true
				stop := w.run()
				defer stop()
				w.mustAsk(vault)
				w.issuer.set(func(f *fakeIssuer) { f.err = unreachable() })
				w.device.set(func(c *clocks) { c.wall, c.synced = year, false })
				after(59 * time.Minute)
				got := w.mustAsk(vault)
				if s, _ := w.ids.Standing(systemID); s.State != lifecycle.ClockUntrusted {
					t.Fatalf("the state is %v", s.State)
				}
				if got.Remaining != time.Minute || !got.ExpiresOn.Equal(w.device.read().Wall.Add(time.Minute)) {
					t.Errorf("remaining %v, expires on %v by a clock that says %v", got.Remaining, got.ExpiresOn, w.device.read().Wall)
				}
				after(time.Minute)
				if _, err := w.ask(vault); err == nil {
					t.Error("served past its real life")
				}
				if list := w.List(); len(list) != 1 || list[0].Held { // boot time proves its end
					t.Errorf("an untrusted clock deleted something, or gave hope: %+v", list)
				}
				w.issuer.set(func(f *fakeIssuer) { f.err = nil })
				w.device.set(func(c *clocks) { c.wall, c.synced = 0, true })
				after(2 * time.Minute) // heals by itself
				if got := w.mustAsk(vault); !got.FromCache {
					t.Error("it was not kept warm after the clock was put right")
				}
			})
		})
	}
}

// firmware-notes/faults.md, CK2: a step of a day either way, trusted or not.
func TestCK2ClockStepsNeitherShortenNorLengthenALife(t *testing.T) {
	for name, step := range map[string]time.Duration{"back": -24 * time.Hour, "ahead": 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t)
				w.ids.judged = true
				w.mustAsk(vault)
				w.issuer.set(func(f *fakeIssuer) { f.err = unreachable() })
				after(10 * time.Minute)
				w.device.set(func(c *clocks) { c.wall, c.synced = step, false })
				if got := w.mustAsk(vault); got.Remaining != 50*time.Minute {
					t.Errorf("after the step: %v left, want 50m", got.Remaining)
				}
				after(50 * time.Minute)
				if _, err := w.ask(vault); err == nil {
					t.Error("served past its real life")
				}
			})
		})
	}
}

// A step that the kernel vouches for is believed by the wall clock's half of
// the rule; the shorter life counts.
func TestTrustedStepAheadShortensALife(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.mustAsk(vault)
		w.device.set(func(c *clocks) { c.wall = 20 * time.Minute })
		if got := w.mustAsk(vault); got.Remaining != 40*time.Minute {
			t.Errorf("%v left, want 40m", got.Remaining)
		}
		w.device.set(func(c *clocks) { c.wall = -4 * time.Minute })
		if got := w.mustAsk(vault); got.Remaining != time.Hour {
			t.Errorf("%v left, want 1h: a step back lengthens nothing", got.Remaining)
		}
	})
}

// firmware-notes/faults.md, CK3: twelve hours asleep, in which monotonic clocks stand still.
func TestCK3SuspendCountsAsLife(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run()
		defer stop()
		w.mustAsk(vault)
		calls := w.issuer.count()
		w.device.set(func(c *clocks) { c.boot += 12 * time.Hour; c.wall += 12 * time.Hour })
		after(tick)
		if n := w.issuer.count() - calls; n != 1 {
			t.Errorf("%d refreshes within one tick after the resume, want 1", n)
		}
		if got := w.mustAsk(vault); got.Remaining < 59*time.Minute {
			t.Errorf("%v left", got.Remaining)
		}
	})
}

// The authority counts the life from before its answer left.
func TestSlowAnswerIsPartOfTheLife(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.issuer.set(func(f *fakeIssuer) { f.delay = 15 * time.Second })
		w.Broker.issuer = lively{w.issuer, gotFirstByte}
		if got := w.mustAsk(vault); got.Remaining != time.Hour-15*time.Second {
			t.Errorf("%v left, want an hour from when it was asked for", got.Remaining)
		}
	})
}
