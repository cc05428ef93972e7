package credential

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern/agent/lifecycle"
)

// refuse makes the authority refuse calls of some kinds.
func (w *world) refuse(calls ...string) {
	w.ca.set(func(a *authority) {
		a.fail = nil
		if len(calls) == 0 {
			return
		}
		a.fail = func(call string) error {
			for _, c := range calls {
				if c == call {
					return refusal(lifecycle.ClassRejected, call, "unknown to us\nevil: line")
				}
			}
			return nil
		}
	})
}

// ID4: one refusal changes nothing; a second one 10 minutes later does.
func TestID4OneRefusalIsNotBelieved(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		w.refuse("token")
		_ = w.token(systemID)
		w.wait(9 * time.Minute)
		_ = w.token(systemID)
		w.expect(systemID, lifecycle.Connected)
		w.wait(time.Minute + time.Second)
		_ = w.token(systemID)
		st := w.expect(systemID, lifecycle.Rejected)
		if !strings.Contains(st.Reason, "unknown to us") || strings.ContainsAny(st.Reason, "\n") || st.Fix != fixReconnect {
			t.Errorf("reason %q, fix %q", st.Reason, st.Fix)
		}
		if st.NotAfter.IsZero() || w.file == nil {
			t.Error("the certificate is gone")
		}
		w.wait(time.Minute)
		if len(w.seen(EventStateChanged)) == 0 {
			t.Errorf("nobody was told:\n%s", w.tail())
		}
		w.reboot(time.Minute)
		w.expect(systemID, lifecycle.Rejected)
	})
}

// A list that refuses the device is asked for once more, ten minutes later,
// and not in between.
func TestRefusedListIsAskedForAgainAfterTenMinutes(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		w.refuse("assignments")
		before := w.ca.count("assignments")
		w.await(20*time.Minute, "rejected", func() bool { return w.standing(systemID).State == lifecycle.Rejected })
		if n := w.ca.count("assignments") - before; n != 2 {
			t.Errorf("asked %d times", n)
		}
	})
}

func TestRefusalsBeyondAnAnswerInBetweenDoNotCount(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		for range 5 {
			w.refuse("token")
			_ = w.token(systemID)
			w.wait(11 * time.Minute)
			w.refuse()
			must(t, w.token(systemID))
		}
		w.expect(systemID, lifecycle.Connected)
	})
}

// A token issuer that no longer knows the identity is not overruled by an
// authority that still answers heartbeats, nor the other way round.
func TestRefusalIsConfirmedBySameSourceOnly(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		w.refuse("token")
		_ = w.token(systemID)
		w.wait(11 * time.Minute) // heartbeats succeed meanwhile
		if w.ca.count("assignments") < 3 {
			t.Fatal("no heartbeats")
		}
		w.refuse("assignments")
		w.wait(6 * time.Minute) // the first refusal of another source
		w.expect(systemID, lifecycle.Connected)
		w.refuse("token")
		_ = w.token(systemID)
		w.expect(systemID, lifecycle.Rejected)
	})
}

func TestRefusalOfAnotherCredentialIsNoEvidence(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		old := w.standing(systemID).Credential
		w.wait(time.Minute)
		must(t, w.Renew(context.Background(), "", nil))
		no := refusal(lifecycle.ClassRejected, "token", "unknown")
		for range 3 {
			w.Observe(systemID, old, no)
			w.Observe(systemID, nil, no)
			w.Observe(otherID, old, no)
			w.wait(11 * time.Minute)
		}
		w.expect(systemID, lifecycle.Connected)
	})
}

func TestRefusalsUnderAnUntrustedClockDoNotCount(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		w.ca.set(func(a *authority) { a.clock = nil })
		w.reboot(time.Minute)
		w.ca.set(func(a *authority) { a.clock = nil })
		w.board.set(func(b *board) { b.synced = false })
		w.reboot(time.Minute)
		w.ca.set(func(a *authority) { a.clock = nil })
		c := w.expect(systemID, lifecycle.ClockUntrusted).Credential
		for range 3 {
			w.Observe(systemID, c, refusal(lifecycle.ClassRejected, "token", "certificate expired"))
			w.wait(11 * time.Minute)
		}
		w.expect(systemID, lifecycle.ClockUntrusted)
		w.board.set(func(b *board) { b.synced = true })
		w.wait(time.Minute)
		if st := w.standing(systemID); st.State == lifecycle.Rejected {
			t.Error("refusals under a wrong clock made it Rejected")
		}
	})
}

func TestRefusedRenewalIsConfirmedAfterTenMinutesAndChangesNothingBefore(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		w.refuse("renew")
		w.calm()
		w.wait(time.Until(w.standing(systemID).RenewAt))
		w.await(6*time.Minute, "refused", func() bool { return len(w.seen(EventRenewalRefused)) == 1 })
		first := time.Now()
		w.expect(systemID, lifecycle.Connected)
		must(t, w.token(systemID))
		w.await(16*time.Minute, "rejected", func() bool { return w.standing(systemID).State == lifecycle.Rejected })
		if gap := time.Since(first); gap < 10*time.Minute-time.Second {
			t.Errorf("believed after %s", gap)
		}
		if n := w.ca.count("renew"); n != 2 {
			t.Errorf("%d attempts", n)
		}
	})
}

// A mistake at the authority can be undone: one retry an hour, no more.
func TestRejectedAsksOnceAnHourAndHeals(t *testing.T) {
	for name, refused := range map[string]string{"by the list": "assignments", "by the renewal": "renew"} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				w.on().calm()
				w.connect()
				if refused == "renew" {
					w.wait(time.Until(w.standing(systemID).RenewAt) - time.Minute)
				}
				w.refuse(refused)
				w.await(time.Hour, "rejected", func() bool { return w.standing(systemID).State == lifecycle.Rejected })
				calls := w.ca.total()
				w.wait(24 * time.Hour)
				if n := w.ca.total() - calls; n < 20 || n > 50 {
					t.Errorf("%d calls in 24 h, want about one or two an hour:\n%v", n, w.ca.calls[calls:])
				}
				w.expect(systemID, lifecycle.Rejected)
				if next := w.standing(systemID).NextTry; next.Before(time.Now()) || next.After(time.Now().Add(time.Hour)) {
					t.Errorf("next try %s, now %s", next, time.Now())
				}
				w.refuse()
				w.wait(61 * time.Minute)
				w.expect(systemID, lifecycle.Connected)
				w.reboot(time.Minute)
				w.wait(time.Minute)
				w.expect(systemID, lifecycle.Connected)
			})
		})
	}
}

func TestRejectedByTheIssuerAsksTheIssuer(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		var known atomic.Bool
		var probes atomic.Int32
		w.options = func(o *Options) {
			o.Probe = func(_ context.Context, with *Credential) error {
				if probes.Add(1); with == nil {
					return errors.New("probed with nothing")
				}
				if !known.Load() {
					return refusal(lifecycle.ClassRejected, "token", "invalid_client")
				}
				return refusal(lifecycle.ClassDenied, "token", "no role") // known, and may not do this
			}
		}
		w.on().calm()
		w.connect()
		w.refuse("token")
		_ = w.token(systemID)
		w.wait(11 * time.Minute)
		_ = w.token(systemID)
		w.expect(systemID, lifecycle.Rejected)
		w.wait(5*time.Hour + time.Minute)
		if n := probes.Load(); n != 5 {
			t.Errorf("%d probes in 5 h", n)
		}
		w.expect(systemID, lifecycle.Rejected) // although the authority's list knows it
		known.Store(true)
		w.wait(time.Hour + time.Minute)
		w.expect(systemID, lifecycle.Connected)
	})
}

func TestRefusedTokensAreMentionedOnceAMinute(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		w.refuse("token")
		for range 300 {
			_ = w.token(systemID)
			w.wait(time.Second)
		}
		if n := len(w.seen(EventTokenRefused)); n < 4 || n > 6 {
			t.Errorf("%d events in 5 min", n)
		}
	})
}

func TestRejectedUserIdentityDoesNotStopTheOthers(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on().calm()
		w.ca.assign(userIdentity(userID, "telemetry"))
		w.connect()
		c := w.standing(userID).Credential
		for range 2 {
			w.Observe(userID, c, refusal(lifecycle.ClassRejected, "token", "disabled"))
			w.wait(11 * time.Minute)
		}
		w.expect(userID, lifecycle.Rejected)
		w.expect(systemID, lifecycle.Connected)
		beats := w.ca.count("assignments")
		w.wait(time.Hour)
		if n := w.ca.count("assignments") - beats; n < 8 {
			t.Errorf("%d heartbeats in an hour", n)
		}
	})
}

func TestOutcomesOfTokensAreContactByTheirClass(t *testing.T) {
	for name, row := range map[string]struct {
		err     error
		contact bool
	}{
		"a token":                   {nil, true},
		"no connection":             {errDown, false},
		"an unclassified error":     {errors.New("boom"), false},
		"a 503 of the issuer":       {&lifecycle.Error{Class: lifecycle.ClassTransient, Op: "x", Answered: true}, true},
		"resource unknown":          {refusal(lifecycle.ClassBadResource, "token", "x"), true},
		"denied":                    {refusal(lifecycle.ClassDenied, "token", "x"), true},
		"a caller that hung up":     {context.Canceled, false},
		"the issuer's clock is off": {refusal(lifecycle.ClassClock, "token", "x"), true},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				w.open() // no loop: no heartbeats
				w.connect()
				w.wait(20 * time.Minute)
				c := w.expect(systemID, lifecycle.Offline).Credential
				w.Observe(systemID, c, row.err)
				if got := w.standing(systemID).State == lifecycle.Connected; got != row.contact {
					t.Errorf("contact: got %t, want %t", got, row.contact)
				}
			})
		})
	}
}
