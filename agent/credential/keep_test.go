package credential

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern/agent/lifecycle"
)

func TestOldCertificateIsWithdrawnOnlyAfterTheNewKeyEarnedAToken(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		old := w.connect().Credential
		w.wait(time.Minute)
		must(t, w.Renew(context.Background(), "", nil))
		w.wait(6 * time.Hour) // heartbeats with the new key are no token
		st := w.standing(systemID)
		if w.ca.isRevoked(old) || st.Previous == nil || st.Previous.Thumbprint() != old.Thumbprint() {
			t.Fatal("withdrawn before the new key has proven itself")
		}
		w.Observe(systemID, old, nil) // a token by the old key proves nothing
		w.wait(time.Minute)
		if w.ca.isRevoked(old) {
			t.Fatal("withdrawn by a token of its own")
		}
		must(t, w.token(systemID))
		w.wait(time.Minute)
		st = w.standing(systemID)
		if !w.ca.isRevoked(old) || st.Previous != nil || w.ca.isRevoked(st.Credential) {
			t.Error("the old certificate was not withdrawn after the first token")
		}
		records, err := w.file.Identities()
		must(t, err)
		if rec := records[0]; rec.Previous == nil || !rec.Previous.Retired || rec.Current.Proven.IsZero() {
			t.Errorf("record: previous %v", rec.Previous)
		}
		w.wait(17 * time.Hour) // 23 h after the renewal: still kept
		if records, _ = w.file.Identities(); records[0].Previous == nil {
			t.Error("the old key was destroyed within 24 h")
		}
		w.wait(2 * time.Hour)
		if records, _ = w.file.Identities(); records[0].Previous != nil {
			t.Error("the old key is kept for ever")
		}
		if n := w.ca.count("retire"); n != 1 {
			t.Errorf("%d withdrawals", n)
		}
	})
}

func TestFailedWithdrawalIsAWarningTriedHourly(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		old := w.connect().Credential
		w.wait(time.Minute)
		must(t, w.Renew(context.Background(), "", nil))
		w.ca.set(func(a *authority) {
			a.fail = func(call string) error {
				if call == "retire" {
					return refusal(lifecycle.ClassDenied, "revoke", "not replicated yet")
				}
				return nil
			}
		})
		must(t, w.token(systemID))
		w.wait(23 * time.Hour)
		if n := w.ca.count("retire"); n < 22 || n > 25 {
			t.Errorf("%d tries in 23 h", n)
		}
		if got := w.Warnings(); len(got) != 0 {
			t.Errorf("warned within a day: %q", got)
		}
		w.wait(3 * time.Hour)
		if got := w.Warnings(); len(got) != 1 || !strings.Contains(got[0], old.Leaf().SerialNumber.String()) {
			t.Errorf("warnings after a day: %q", got)
		}
		w.expect(systemID, lifecycle.Connected)
		w.ca.set(func(a *authority) { a.fail = nil })
		w.wait(2 * time.Hour)
		if got := w.Warnings(); len(got) != 0 || !w.ca.isRevoked(old) {
			t.Errorf("after it succeeded: %q", got)
		}
	})
}

func TestUntrustedClockWithdrawsAndDestroysNothing(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		w.wait(time.Minute)
		must(t, w.Renew(context.Background(), "", nil))
		w.ca.set(func(a *authority) {
			a.fail = func(call string) error { return map[string]error{"retire": errDown}[call] }
		})
		must(t, w.token(systemID))
		w.wait(time.Minute)
		w.ca.set(func(a *authority) { a.fail = nil })
		w.board.set(func(b *board) { b.synced, b.skew = false, 200*day }) // the old certificate would be over
		w.reboot(time.Minute)
		tried := w.ca.count("retire")
		w.wait(3 * time.Hour)
		w.expect(systemID, lifecycle.ClockUntrusted)
		if n := w.ca.count("retire"); n != tried {
			t.Errorf("%d withdrawals", n-tried)
		}
		if records, _ := w.file.Identities(); records[0].Previous == nil {
			t.Error("the old key was destroyed")
		}
		w.board.set(func(b *board) { b.synced, b.skew = true, 0 })
		w.wait(2 * time.Hour)
		if n := w.ca.count("retire"); n != tried+1 {
			t.Errorf("%d withdrawals after the clock was right", n-tried)
		}
	})
}

// A withdrawal that was interrupted is taken up again; one that meets its own
// effect is done.
func TestWithdrawalThatMeetsItsOwnEffectIsDone(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		w.wait(time.Minute)
		must(t, w.Renew(context.Background(), "", nil))
		w.ca.set(func(a *authority) {
			a.lose = func(call string) error {
				if call == "retire" {
					return errDown
				}
				return nil
			}
		})
		must(t, w.token(systemID))
		w.wait(time.Minute)
		w.ca.set(func(a *authority) { a.lose = nil })
		w.reboot(time.Minute)
		w.wait(2 * time.Minute)
		if len(w.seen(EventRetired)) != 1 {
			t.Errorf("not done: %+v", w.seen(EventRetireFailed))
		}
	})
}

func TestOldCertificateThatEndsByItselfIsForgotten(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on().calm()
		w.connect()
		w.wait(time.Minute)
		must(t, w.Renew(context.Background(), "", nil)) // and no token is ever asked for
		w.wait(91 * day)
		records, err := w.file.Identities()
		must(t, err)
		if old := records[0].Previous; old != nil {
			chain, err := parseChain(old.Chain)
			must(t, err)
			if chain[0].NotAfter.Before(time.Now()) {
				t.Error("the key of a certificate that is over is kept")
			}
		}
		if n := w.ca.count("retire"); n != 0 {
			t.Errorf("%d withdrawals without proof", n)
		}
	})
}

// T24, ST17: keys that others could read are not used, not repaired, and only
// reconnect cures it.
func TestExposedKeysAreNotUsedUntilReconnect(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.ca.assign(userIdentity(userID, "telemetry"))
		sys := w.connect().Credential
		user := w.standing(userID).Credential
		must(t, w.Expose("identity.db was readable by uid 1001"))
		must(t, w.Expose("a second finding"))
		calls := w.ca.total()
		for _, id := range []string{systemID, userID} {
			st := w.standing(id)
			if st.Credential != nil || st.Previous != nil || !strings.Contains(st.Exposed, "uid 1001") || st.Fix != fixReconnect {
				t.Errorf("%s: %+v", id, st)
			}
		}
		w.reboot(time.Minute)
		w.wait(day)
		if w.standing(systemID).Credential != nil || !strings.Contains(w.standing(systemID).Exposed, "uid 1001") {
			t.Error("a restart forgot it")
		}
		if n := w.ca.total() - calls; n != 0 {
			t.Errorf("exposed keys were used %d times", n)
		}
		p := problemOf(t, w.Renew(context.Background(), "", nil))
		if !strings.Contains(p.Error(), "exposed") {
			t.Errorf("renew: %v", p)
		}
		if n := len(w.seen(EventAccessDrift)); n != 1 {
			t.Errorf("%d events", n)
		}
		w.ca.set(func(a *authority) { a.offer[userID] = a.claimLocked(userIdentity(userID, "telemetry")) })
		_, err := w.Reconnect(context.Background(), w.onboarding(systemIdentity()))
		must(t, err)
		w.wait(10 * time.Minute)
		for id, old := range map[string]*Credential{systemID: sys, userID: user} {
			st := w.expect(id, lifecycle.Connected)
			if st.Exposed != "" || st.Credential == nil || samePublicKey(st.Credential.Signer.Public(), old.Signer.Public()) {
				t.Errorf("%s still has an exposed key: %+v", id, st)
			}
			if !w.ca.isRevoked(old) {
				t.Errorf("%s: the exposed key's certificate lives", id)
			}
		}
	})
}

// One file holds all keys: while they are exposed nothing is added to it, and
// the device's own identity comes first.
func TestExposedDeviceTakesNoOtherIdentityBeforeItsOwn(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		static := userIdentity(userID, "telemetry")
		w.options = func(o *Options) { o.Static = []Identity{static} }
		w.auth = plain{w.ca}
		w.on()
		w.connect()
		before, _ := w.Enrolment()
		w.wait(time.Hour)
		o := w.onboarding(static)
		o.Identity = static
		_, err := w.Connect(context.Background(), o)
		must(t, err)
		if now, _ := w.Enrolment(); !now.ConnectedAt.Equal(before.ConnectedAt) {
			t.Error("another identity changed when the device was connected")
		}
		must(t, w.Expose("readable by uid 1001"))
		calls := w.ca.total()
		o = w.onboarding(static)
		o.Identity = static
		_, err = w.Reconnect(context.Background(), o)
		if p := problemOf(t, err); p.Fix != fixReconnect {
			t.Errorf("reconnect of another identity: %v, fix %q", err, p.Fix)
		}
		o.Identity.ClientID = otherID
		_, err = w.Connect(context.Background(), o)
		if p := problemOf(t, err); p.Fix != fixReconnect {
			t.Errorf("connect of another identity: %v, fix %q", err, p.Fix)
		}
		if w.ca.total() != calls || w.standing(systemID).Exposed == "" {
			t.Error("an exposed device was changed")
		}
	})
}

func TestExposureHoldsEvenIfItCannotBeStored(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		var full atomic.Bool
		w.wrap = func(f identityFile) identityFile {
			return &meddled{identityFile: f, before: func() error {
				if full.Load() {
					return errDown
				}
				return nil
			}}
		}
		w.on()
		if err := w.Expose("nothing to expose yet"); err != nil || w.vacant().Exposed != "" {
			t.Error("a device without identity was marked")
		}
		w.connect()
		full.Store(true)
		if err := w.Expose("readable by uid 1001"); err == nil {
			t.Error("the failure was swallowed")
		}
		if w.standing(systemID).Credential != nil {
			t.Error("the key may still be used")
		}
		full.Store(false)
		w.wait(time.Minute)
		w.reboot(time.Minute)
		if w.standing(systemID).Credential != nil {
			t.Error("what could not be stored at first was never stored")
		}
	})
}

// Nobody gets tokens cached for an identity by reading its events: they carry
// facts only. Secrets appear in no event and no line of the log.
func TestLogHoldsNoSecret(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		o := w.onboarding(systemIdentity())
		_, err := w.Connect(context.Background(), o)
		must(t, err)
		w.ca.assign(userIdentity(userID, "telemetry"))
		var offered string
		w.ca.set(func(a *authority) { offered = a.offer[userID] })
		w.wait(10 * time.Minute)
		must(t, w.Renew(context.Background(), "", nil))
		w.refuse("renew", "assignments")
		w.wait(time.Hour)
		for _, secret := range []string{o.Claim.Reveal(), offered, "PRIVATE KEY", "BEGIN CERT"} {
			if strings.Contains(w.logged(), secret) {
				t.Errorf("the log holds %q:\n%s", secret, w.tail())
			}
		}
	})
}
