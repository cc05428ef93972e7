package credential

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"postern/agent/lifecycle"
)

// bytesOf digests the state directory: what a fault must not change.
func bytesOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	sums := map[string]string{}
	for _, name := range []string{"identity.db", "identity.db.bak", "identity.json", "kek"} {
		content, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		sum := sha256.Sum256(content)
		sums[name] = hex.EncodeToString(sum[:])
	}
	return sums
}

func sameBytes(t *testing.T, before, after map[string]string) {
	t.Helper()
	for name, sum := range before {
		if after[name] != sum {
			t.Errorf("%s was written", name)
		}
	}
}

// CK1: boot in 1970, or in 2106, without network: nothing on disk changes,
// nothing expires, and the time heals it.
func TestCK1WrongYearAtBootDestroysNothing(t *testing.T) {
	for name, year := range map[string]int{"1970": 1970, "2106": 2106, "2099": 2099} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				w.on()
				w.connect()
				w.wait(time.Hour)
				w.off()
				before := bytesOf(t, w.dir)
				w.ca.set(func(a *authority) { a.fail = down })
				w.board.set(func(b *board) {
					b.synced, b.skew = false, time.Until(time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC))
				})
				w.reboot(time.Minute)
				w.calm()
				st := w.expect(systemID, lifecycle.ClockUntrusted)
				if st.Credential == nil || st.Reason == "" || st.Fix == "" {
					t.Errorf("got %+v", st)
				}
				w.wait(100 * day) // longer than the certificate lives
				w.expect(systemID, lifecycle.ClockUntrusted)
				sameBytes(t, before, bytesOf(t, w.dir))
				if n := w.ca.count("renew") + w.ca.count("assignments"); n > 14 { // those of the first hour
					t.Errorf("%d calls with the identity under an untrusted clock", n)
				}
				if w.ca.count("heartbeat") < 100 {
					t.Errorf("%d tries to learn the time", w.ca.count("heartbeat"))
				}
				if len(w.seen(EventExpiring))+len(w.seen(EventExpired)) != 0 {
					t.Error("an untrusted clock warned of an end")
				}
			})
		})
	}
}

func TestCK1TimeFromTheAuthorityHealsAndNothingIsRenewedBefore(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		w.board.set(func(b *board) { b.synced, b.skew = false, -30*365*day })
		w.ca.set(func(a *authority) { a.fail = down })
		w.reboot(50 * day) // renewal is due, but who knows
		w.wait(time.Hour)
		w.expect(systemID, lifecycle.ClockUntrusted)
		if n := w.ca.count("renew"); n != 0 {
			t.Fatalf("%d renewals under an untrusted clock", n)
		}
		// The authority is back; its Date contradicts our clock, and NTP follows.
		w.ca.set(func(a *authority) { a.fail = nil })
		w.wait(20 * time.Minute)
		w.expect(systemID, lifecycle.ClockUntrusted)
		if n := w.ca.count("renew") + w.ca.count("assignments"); n != 1 { // the one of connect
			t.Errorf("%d calls with the identity", n)
		}
		w.board.set(func(b *board) { b.skew = 0 })
		w.wait(2 * time.Minute)
		w.expect(systemID, lifecycle.Connected)
		if n := w.ca.count("renew"); n != 1 {
			t.Errorf("%d renewals after the clock was right", n)
		}
	})
}

// CK4: NTP ten minutes late, then a step of 20 years: one transition, one
// re-plan, nothing renewed before.
func TestCK4LateNTPIsOneTransition(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		w.board.set(func(b *board) { b.synced, b.skew = false, -20*365*day })
		w.ca.set(func(a *authority) { a.clock = nil })
		w.reboot(time.Minute)
		w.ca.set(func(a *authority) { a.clock = nil })
		w.forgetEvents()
		w.wait(10 * time.Minute)
		w.board.set(func(b *board) { b.synced, b.skew = true, 0 })
		w.wait(time.Minute)
		w.expect(systemID, lifecycle.Connected)
		if n := len(w.seen(EventClockTrusted)); n != 1 {
			t.Errorf("%d transitions to trusted", n)
		}
		if n := w.ca.count("renew"); n != 0 {
			t.Errorf("%d renewals", n)
		}
	})
}

// CK2: a step of a day either way is noticed within one tick, and nothing expires early.
func TestCK2StepIsNoticedWithinOneTick(t *testing.T) {
	for name, step := range map[string]time.Duration{"forward": 25 * time.Hour, "back": -25 * time.Hour, "past the end": 100 * day} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				w.on().calm()
				w.connect()
				w.wait(30 * day) // the floor is well below
				w.brisk()
				w.ca.set(func(a *authority) { a.fail = down })
				w.board.set(func(b *board) { b.synced, b.skew = false, step })
				w.wait(31 * time.Second)
				if got := w.seen(EventClockUntrusted); len(got) != 1 {
					t.Errorf("%d events within a tick; state %s", len(got), w.standing(systemID).State)
				}
				w.expect(systemID, lifecycle.ClockUntrusted)
				w.board.set(func(b *board) { b.synced, b.skew = true, 0 })
				w.wait(31 * time.Second)
				if st := w.standing(systemID); !st.State.MayIssue() {
					t.Errorf("after the step was undone: %s", st.State)
				}
				if len(w.seen(EventExpired)) != 0 {
					t.Error("it expired in between")
				}
			})
		})
	}
}

// CK3: work that fell due in a suspend is done within one tick after it.
func TestCK3SuspendOfTwelveHoursIsWorkedOffWithinATick(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on().calm()
		st := w.connect()
		w.wait(time.Until(st.RenewAt) - 6*time.Hour)
		w.brisk()
		calls := w.ca.total()
		// Both clocks go on while monotonic timers stand still.
		w.board.set(func(b *board) { b.suspended, b.skew = 12*time.Hour, 12*time.Hour })
		w.ca.set(func(a *authority) { a.ahead = 12 * time.Hour })
		w.wait(31 * time.Second)
		if n := w.ca.count("renew"); n != 1 {
			t.Errorf("%d renewals within a tick", n)
		}
		if w.ca.total() == calls {
			t.Error("no heartbeat within a tick")
		}
		w.expect(systemID, lifecycle.Connected)
	})
}

// CK5: seconds that are smeared or repeated have no effect.
func TestCK5LeapSecondHasNoEffect(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		w.wait(time.Minute)
		w.forgetEvents()
		for _, skew := range []time.Duration{-time.Second, 0, 500 * time.Millisecond, -2 * time.Second} {
			w.board.set(func(b *board) { b.skew = skew })
			w.wait(20 * time.Minute)
			w.expect(systemID, lifecycle.Connected)
		}
		if len(w.events) != 0 {
			t.Errorf("events: %+v", w.events)
		}
	})
}

func TestFloorIsStoredWithOtherWritesAtStateChangesAndAtTheEndAtMostHourly(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		writes := 0
		w.wrap = func(f identityFile) identityFile {
			return &meddled{identityFile: f, after: func() error { writes++; return nil }}
		}
		w.on()
		w.connect()
		w.wait(10 * time.Minute)
		writes = 0
		stored := func() time.Time { dev, err := w.file.Device(); must(t, err); return dev.Floor }
		w.calm()
		w.wait(5 * day)
		w.brisk()
		if writes != 0 {
			t.Fatalf("an idle device wrote %d times", writes)
		}
		// A link that flaps is not a reason to write the card to death.
		for range 6 {
			w.ca.set(func(a *authority) { a.fail = down })
			w.wait(25 * time.Minute)
			w.ca.set(func(a *authority) { a.fail = nil })
			w.wait(25 * time.Minute)
		}
		if writes == 0 || writes > 5 {
			t.Errorf("%d writes in 5 h of a flapping link, want one an hour at most", writes)
		}
		w.wait(2 * time.Hour)
		at := stored()
		w.off()
		w.open()
		if now := stored(); now.Sub(at) < time.Hour || time.Since(now) > 10*time.Minute {
			t.Errorf("floor at the end: %s, before %s, now %s", now, at, time.Now())
		}
	})
}

// A floor that was stored under a bad clock must not brick the device.
func TestFloorInTheFutureIsLoweredByTheAuthorityAndStoredLower(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		w.clock.Raise(time.Now().AddDate(60, 0, 0))
		w.off() // stores it
		w.reboot(time.Minute)
		w.wait(2 * time.Minute)
		w.expect(systemID, lifecycle.Connected)
		w.off()
		w.open()
		if dev, err := w.file.Device(); err != nil || dev.Floor.After(time.Now()) {
			t.Errorf("stored floor %s, %v; now %s", dev.Floor, err, time.Now())
		}
	})
}

func TestEveryStateIsDerivedAnewAndNeverStored(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.open() // no loop
		w.connect()
		var got []lifecycle.State
		see := func() { got = append(got, w.standing(systemID).State) }
		see()
		w.wait(16 * time.Minute)
		see()
		w.board.set(func(b *board) { b.synced, b.skew = false, -50*365*day })
		see()
		w.board.set(func(b *board) { b.synced, b.skew = true, 91*day })
		w.ca.set(func(a *authority) { a.clock = nil })
		w.board.set(func(b *board) { b.boots++ }) // as after a restart: no anchor
		see()
		w.board.set(func(b *board) { b.skew = 0 })
		see()
		w.Observe(systemID, w.standing(systemID).Credential, nil)
		see()
		want := []lifecycle.State{lifecycle.Connected, lifecycle.Offline, lifecycle.ClockUntrusted, lifecycle.Expired, lifecycle.Offline, lifecycle.Connected}
		if !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		must(t, w.Adopt(context.Background()))
	})
}
