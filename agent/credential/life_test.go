package credential

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/agent/lifecycle"
)

func TestIdentityLivesToTheLastSecondOfItsCertificateThenContactsNobody(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on().calm()
		st := w.connect()
		w.ca.set(func(a *authority) { a.fail = down })
		w.wait(time.Until(st.NotAfter.Add(-time.Second)))
		now := w.expect(systemID, lifecycle.Offline)
		if now.Credential == nil || !now.Until.Equal(st.NotAfter) {
			t.Errorf("a second before the end: credential %v, until %s", now.Credential, now.Until)
		}
		w.wait(time.Second)
		gone := w.expect(systemID, lifecycle.Expired)
		if gone.Fix != fixReconnect || !strings.Contains(gone.Reason, "2000-03-30 23:59:00") {
			t.Errorf("reason %q, fix %q", gone.Reason, gone.Fix)
		}
		w.wait(time.Second) // work that had begun before ends
		w.ca.set(func(a *authority) { a.fail = nil })
		calls := w.ca.total()
		w.wait(30 * day)
		w.reboot(time.Hour)
		w.wait(day)
		if n := w.ca.total() - calls; n != 0 {
			t.Errorf("Expired contacted the authority %d times", n)
		}
		if n := len(w.seen(EventExpired)); n != 2 { // once then, once at the start
			t.Errorf("%d events", n)
		}
		problem(t, w.Renew(context.Background(), "", nil), "state-expired")
		if _, err := w.Reconnect(context.Background(), w.onboarding(systemIdentity())); err != nil {
			t.Fatal(err)
		}
		w.expect(systemID, lifecycle.Connected)
	})
}

// ID7: off for 46, 89, 91, 400 days; the state is right at boot.
func TestID7StateIsRightAtBootAfterAnyTimeOff(t *testing.T) {
	for off, want := range map[int]struct {
		first lifecycle.State
		then  lifecycle.State // after a minute with the authority in reach
	}{
		46:  {lifecycle.Offline, lifecycle.Connected},
		89:  {lifecycle.Offline, lifecycle.Connected},
		91:  {lifecycle.Expired, lifecycle.Expired},
		400: {lifecycle.Expired, lifecycle.Expired},
	} {
		in(t, func(t *testing.T, w *world) {
			w.on()
			w.connect()
			w.off()
			w.wait(time.Duration(off) * day)
			w.board.set(func(b *board) { b.boots++; b.booted = time.Now() })
			w.open()
			if got := w.standing(systemID).State; got != want.first {
				t.Errorf("%d d: got %s at boot, want %s", off, got, want.first)
			}
			w.start()
			w.wait(3 * time.Minute)
			if got := w.standing(systemID); got.State != want.then {
				t.Errorf("%d d: got %s, want %s", off, got.State, want.then)
			}
			if want.then == lifecycle.Connected && w.ca.count("renew") != 1 {
				t.Errorf("%d d: %d renewals", off, w.ca.count("renew"))
			}
		})
	}
}

func TestHeartbeatComesBeforeTheContactIsOver(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.options = func(o *Options) { o.OfflineAfter = time.Minute }
		w.on()
		w.connect()
		w.wait(5 * time.Minute)
		before := len(w.seen(EventAuthorityLost))
		w.wait(2 * time.Hour)
		if n := len(w.seen(EventAuthorityLost)) - before; n != 0 {
			t.Errorf("the device was Offline %d times in two hours of a good link", n)
		}
		w.expect(systemID, lifecycle.Connected)
	})
}

func TestHeartbeatComesEveryFiveMinutes(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		var beats []time.Time
		w.on()
		w.connect()
		w.ca.set(func(a *authority) {
			a.fail = func(call string) error { beats = append(beats, time.Now()); return nil }
		})
		w.wait(24 * time.Hour)
		var gaps []time.Duration
		for i := 1; i < len(beats); i++ {
			gaps = append(gaps, beats[i].Sub(beats[i-1]))
		}
		if slices.Min(gaps) < 270*time.Second || slices.Max(gaps) > 331*time.Second {
			t.Errorf("gaps from %s to %s, want 5 min +- 10 %%", slices.Min(gaps), slices.Max(gaps))
		}
		if len(slices.Compact(slices.Sorted(slices.Values(gaps)))) < 20 {
			t.Error("the heartbeat has no jitter")
		}
	})
}

func TestLostContactIsNoticedAndRegainedContactToo(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		w.wait(time.Hour)
		w.ca.set(func(a *authority) { a.fail = down })
		w.await(21*time.Minute, "offline", func() bool { return w.standing(systemID).State == lifecycle.Offline })
		if st := w.standing(systemID); !strings.Contains(st.Reason, "connection refused") || st.Fix == "" {
			t.Errorf("reason %q, fix %q", st.Reason, st.Fix)
		}
		calls := w.ca.total()
		w.wait(10 * time.Hour)
		if n := w.ca.total() - calls; n < 40 || n > 100 {
			t.Errorf("%d tries in 10 h without a link, want one in 15 min at least, with backoff", n)
		}
		w.ca.set(func(a *authority) { a.fail = nil })
		w.await(16*time.Minute, "connected", func() bool { return w.standing(systemID).State == lifecycle.Connected })
		w.wait(time.Minute)
		if len(w.seen(EventAuthorityLost)) != 1 || len(w.seen(EventAuthorityRegained)) != 1 {
			t.Errorf("lost %d, regained %d", len(w.seen(EventAuthorityLost)), len(w.seen(EventAuthorityRegained)))
		}
	})
}

func TestRegainedContactTriggersARenewalAtOnceSpreadOverAMinute(t *testing.T) {
	var delays []time.Duration
	for range 12 {
		in(t, func(t *testing.T, w *world) {
			w.ca.life = 30 * day
			w.on().calm()
			st := w.connect()
			w.ca.set(func(a *authority) { a.fail = down })
			w.wait(time.Until(st.RenewAt) + 2*day) // backoff is at hours by now
			var at time.Time
			w.ca.set(func(a *authority) {
				a.fail = func(call string) error {
					if call == "renew" && at.IsZero() {
						at = time.Now()
					}
					return nil
				}
			})
			back := time.Now()
			must(t, w.token(systemID)) // a caller's token is the contact
			var renewed time.Time
			w.await(2*time.Minute, "renewed", func() bool {
				w.ca.set(func(*authority) { renewed = at })
				return !renewed.IsZero()
			})
			delays = append(delays, renewed.Sub(back))
		})
	}
	slices.Sort(delays)
	if delays[len(delays)-1] > 61*time.Second {
		t.Errorf("took up to %s", delays[len(delays)-1])
	}
	if delays[len(delays)-1]-delays[0] < 10*time.Second {
		t.Errorf("all between %s and %s: a fleet would call as one", delays[0], delays[len(delays)-1])
	}
}

func TestRegainedContactDoesNotOverrideRetryAfter(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on().calm()
		st := w.connect()
		var tries []time.Time
		w.ca.set(func(a *authority) {
			a.fail = func(call string) error {
				if call != "renew" {
					return errDown
				}
				tries = append(tries, time.Now())
				return &lifecycle.Error{Class: lifecycle.ClassTransient, Op: "renew", Throttled: true, RetryAfter: 5 * time.Hour}
			}
		})
		w.wait(time.Until(st.RenewAt) + time.Hour)
		w.ca.set(func(a *authority) { a.fail = nil })
		must(t, w.token(systemID))
		w.await(8*time.Hour, "renewed", func() bool { return len(w.seen(EventRenewed)) == 1 })
		if gap := time.Since(tries[len(tries)-1]); gap < 5*time.Hour-time.Second {
			t.Errorf("asked again after %s, told to wait 5 h", gap)
		}
	})
}

func TestWarningsComeAt30And14And7And3And1DaysOnceEach(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on().calm()
		st := w.connect()
		w.ca.set(func(a *authority) { a.fail = down })
		w.wait(time.Until(st.NotAfter) + time.Hour)
		var days []int
		for _, e := range w.seen(EventExpiring) {
			days = append(days, e.Days)
			if left := e.Until.Sub(e.Time); left > time.Duration(e.Days)*day || left < time.Duration(e.Days)*day-6*time.Minute {
				t.Errorf("the warning of %d d came %s before the end", e.Days, left)
			}
			if !strings.Contains(e.Reason, "connection refused") {
				t.Errorf("reason %q does not say why it is not renewed", e.Reason)
			}
		}
		if !slices.Equal(days, []int{30, 14, 7, 3, 1}) {
			t.Errorf("got %v", days)
		}
	})
}

func TestWarningStandsInStatusUntilTheRenewal(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on().calm()
		st := w.connect()
		w.ca.set(func(a *authority) { a.fail = down })
		w.wait(time.Until(st.NotAfter) - 5*day)
		if got := w.Warnings(); len(got) != 1 || !strings.Contains(got[0], "within 7 d") {
			t.Fatalf("warnings: %q", got)
		}
		w.ca.set(func(a *authority) { a.fail = nil })
		w.await(20*time.Minute, "renewed", func() bool { return len(w.seen(EventRenewed)) == 1 })
		w.wait(10 * time.Minute)
		if got := w.Warnings(); len(got) != 0 {
			t.Errorf("warnings after the renewal: %q", got)
		}
	})
}

// ID2: unusual lives are accepted, with renewal at half-life.
func TestID2UnusualLivesAreRenewedAtHalfLife(t *testing.T) {
	for _, life := range []time.Duration{time.Hour, day, 365 * day, 100 * 365 * day} {
		in(t, func(t *testing.T, w *world) {
			w.open()
			w.ca.life = life
			st := w.connect()
			early, late := st.NotBefore.Add(life/2-life/20), st.NotBefore.Add(life/2)
			if st.RenewAt.Before(early) || st.RenewAt.After(late) {
				t.Errorf("life %s: due %s after NotBefore", life, st.RenewAt.Sub(st.NotBefore))
			}
			if said := strings.Contains(w.logged(), "very long life"); said != (life > 398*day) {
				t.Errorf("life %s: warned: %t", life, said)
			}
		})
	}
}

func TestShortLivedCertificatesAreRenewedForever(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.ca.life = time.Hour
		w.on()
		w.connect()
		for range 12 {
			w.wait(time.Hour)
			w.expect(systemID, lifecycle.Connected)
			must(t, w.token(systemID))
		}
		if n := w.ca.count("renew"); n < 20 || n > 30 {
			t.Errorf("%d renewals in 12 h of 1 h certificates", n)
		}
	})
}

// A year with a link that is away more often than not: never without an
// identity, never more renewals than certificates need.
func TestYearOfOutagesKeepsTheIdentity(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on().calm()
		w.connect()
		chance := rand.New(rand.NewPCG(7, 11)) //nolint:gosec // a test's history, the same each time
		for w.clock.Now().Wall.Before(time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)) {
			w.ca.set(func(a *authority) { a.fail = down })
			w.wait(time.Duration(chance.IntN(30*24)) * time.Hour)
			if st := w.standing(systemID); !st.State.MayIssue() {
				t.Fatalf("%s: %s", st.State, st.Reason)
			}
			if chance.IntN(3) == 0 {
				w.reboot(time.Duration(chance.IntN(72)) * time.Hour)
				w.calm()
			}
			w.ca.set(func(a *authority) { a.fail = nil })
			w.wait(time.Hour + time.Duration(chance.IntN(24))*time.Hour)
			w.expect(systemID, lifecycle.Connected)
			must(t, w.token(systemID))
		}
		if n := len(w.seen(EventRenewed)); n < 6 || n > 9 {
			t.Errorf("%d renewals in a year", n)
		}
		if keys := len(w.ca.keys); keys != len(w.seen(EventRenewed))+1 {
			t.Errorf("%d keys for %d renewals", keys, len(w.seen(EventRenewed)))
		}
	})
}

func TestCopiedCardIssuesNothingContactsNobodyAndHealsByAdopt(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		serial := w.serial(systemID)
		w.board.set(func(b *board) { b.parts = []string{"serial=9", "mmc=8", "mac=7"} })
		w.reboot(time.Minute)
		calls := w.ca.total()
		st := w.expect(systemID, lifecycle.Moved)
		if !strings.Contains(st.Fix, "adopt --hardware-changed") || !strings.Contains(st.Fix, "reset --enrolment") {
			t.Errorf("fix %q", st.Fix)
		}
		w.wait(24 * time.Hour)
		_, err := w.Connect(context.Background(), w.onboarding(systemIdentity()))
		problem(t, err, "state-moved")
		problem(t, w.Disconnect(context.Background(), false, nil), "state-moved") // it would end the original
		if n := w.ca.total() - calls; n != 0 {
			t.Errorf("a copied card contacted the authority %d times", n)
		}
		must(t, w.Adopt(context.Background()))
		w.wait(time.Minute)
		w.expect(systemID, lifecycle.Connected)
		if w.serial(systemID) != serial {
			t.Error("adopt changed the certificate")
		}
		w.reboot(time.Minute)
		w.wait(time.Minute)
		w.expect(systemID, lifecycle.Connected)
	})
}

func TestOneReplacedPartIsNotACopy(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		w.board.set(func(b *board) { b.parts[2] = "mac=44" })
		w.reboot(time.Minute)
		w.wait(time.Minute)
		w.expect(systemID, lifecycle.Connected)
	})
}
