package credential

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/agent/lifecycle"
	"postern/store"
)

func TestConnectMakesANewKeyAndTellsEachStage(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		if st, ok := w.System(); ok || st.State != lifecycle.Unenrolled || st.Fix != fixConnect {
			t.Errorf("before: %+v, %t", st, ok)
		}
		st := w.connect()
		id := systemIdentity()
		if st.Identity != id {
			t.Errorf("identity: got %+v, want %+v", st.Identity, id)
		}
		if st.State != lifecycle.Connected || st.Credential == nil || st.Credential.Protection != "file" {
			t.Errorf("standing: %+v", st)
		}
		for i, word := range []string{"clock:", "key:", "authority:", "certificate: 90 d", "stored:", "identities: 1"} {
			if i >= len(w.steps) || !strings.HasPrefix(w.steps[i], word) {
				t.Errorf("step %d: got %q, want %q", i, w.steps, word)
			}
		}
		dev, ok := w.Enrolment()
		if !ok || dev.AuthorityURL != authURL || dev.RootSHA256 != w.ca.rootSHA256() || !dev.Assignments || len(dev.Fingerprint) != 3 {
			t.Errorf("device record: %+v", dev)
		}
		if got := w.seen(EventConnected); len(got) != 1 || got[0].Identity != id {
			t.Errorf("events: %+v", got)
		}
		must(t, w.Disconnect(context.Background(), false, nil))
		again := w.connect()
		if samePublicKey(st.Credential.Signer.Public(), again.Credential.Signer.Public()) {
			t.Error("connect used a key a second time")
		}
	})
}

func TestConnectRefusesAConnectedDeviceWithTheCommandThatFits(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on().calm()
		st := w.connect()
		before := bytesOf(t, w.dir)
		calls := w.ca.total()
		_, err := w.Connect(context.Background(), w.onboarding(systemIdentity()))
		if p := problem(t, err, "already-connected"); !errors.Is(err, ErrConnected) || p.Fix != fixDisconnect {
			t.Errorf("got %v, fix %q", err, p.Fix)
		}
		sameBytes(t, before, bytesOf(t, w.dir))
		if w.ca.total() != calls {
			t.Error("the claim was spent for nothing")
		}
		w.ca.set(func(a *authority) { a.fail = down })
		w.wait(time.Until(st.NotAfter) + time.Hour)
		_, err = w.Connect(context.Background(), w.onboarding(systemIdentity()))
		if p := problem(t, err, "already-connected"); p.Fix != fixReconnect {
			t.Errorf("expired: fix %q", p.Fix)
		}
	})
}

// ID10: wrong, used and expired secrets are the authority's words; nothing is
// left behind.
func TestID10FailedConnectLeavesNothing(t *testing.T) {
	refuse := func(reason string) func(*world, *Onboarding) {
		return func(w *world, _ *Onboarding) {
			w.ca.fail = func(string) error { return refusal(lifecycle.ClassDenied, "sign", reason) }
		}
	}
	for name, row := range map[string]struct {
		change   func(*world, *Onboarding)
		id, says string
	}{
		"wrong":      {refuse("token signature is wrong"), "claim-refused", "signature is wrong"},
		"expired":    {refuse("token expired"), "claim-refused", "expired"},
		"used":       {func(w *world, o *Onboarding) { w.ca.claims = map[string]Identity{} }, "claim-refused", "already used"},
		"no network": {func(w *world, o *Onboarding) { w.ca.fail = down }, "authority-unreachable", "connection refused"},
		"clock": {func(w *world, o *Onboarding) {
			w.ca.fail = func(string) error { return refusal(lifecycle.ClassClock, "tls", "x") }
		}, "clock", "x"},
		"lost answer":   {func(w *world, o *Onboarding) { w.ca.lose = down }, "authority-unreachable", "connection refused"},
		"other root":    {func(w *world, o *Onboarding) { o.RootSHA256 = strings.Repeat("ab", 32) }, "root-mismatch", "SHA-256"},
		"no root":       {func(w *world, o *Onboarding) { o.RootPEM = "" }, "root-mismatch", "no root certificate"},
		"two roots":     {func(w *world, o *Onboarding) { o.RootPEM += o.RootPEM }, "root-mismatch", "exactly one"},
		"not a root":    {func(w *world, o *Onboarding) { o.RootPEM = strings.ReplaceAll(o.RootPEM, "CERTIFICATE", "PRIVATE KEY") }, "root-mismatch", "no root"},
		"foreign root":  {func(w *world, o *Onboarding) { o.RootPEM, o.RootSHA256 = newAuthority(w.t).rootPEM(), "" }, "certificate-refused", "unknown authority"},
		"bad client id": {func(w *world, o *Onboarding) { o.Identity.ClientID = "a b" }, "client-id", "client id"},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				w.on()
				o := w.onboarding(systemIdentity())
				w.ca.set(func(*authority) { row.change(w, &o) })
				_, err := w.Connect(context.Background(), o)
				var p *Problem
				if !errors.As(err, &p) || p.ID != row.id || !strings.Contains(err.Error(), row.says) {
					t.Fatalf("got %v (%+v), want %s: %q", err, p, row.id, row.says)
				}
				if strings.Contains(err.Error()+w.logged(), o.Claim.Reveal()) {
					t.Error("the claim stands in the error or the log")
				}
				if st, ok := w.System(); ok || st.State != lifecycle.Unenrolled {
					t.Errorf("standing: %+v, %t", st, ok)
				}
				for _, name := range []string{"identity.db", "identity.db.bak", "identity.json", "kek"} {
					if _, err := os.Stat(filepath.Join(w.dir, name)); !errors.Is(err, os.ErrNotExist) {
						t.Errorf("%s was left behind: %v", name, err)
					}
				}
				if len(w.seen(EventOnboardingFailed)) != 1 {
					t.Errorf("events: %+v", w.events)
				}
				w.ca.set(func(a *authority) { a.fail, a.lose = nil, nil })
				w.connect()
			})
		})
	}
}

func TestConnectWithoutTheListLearnsItLater(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.ca.assign(userIdentity(userID, "telemetry"))
		w.ca.set(func(a *authority) {
			a.fail = func(call string) error {
				if call == "assignments" {
					return errDown
				}
				return nil
			}
		})
		st := w.connect()
		if st.Identity.Name != systemID { // all that the certificate says
			t.Errorf("name %q", st.Identity.Name)
		}
		w.ca.set(func(a *authority) { a.fail = nil })
		w.await(3*time.Minute, "listed", func() bool { st, ok := w.Standing(userID); return ok && st.State == lifecycle.Connected })
		if got := w.standing(systemID).Identity; got != systemIdentity() {
			t.Errorf("facts: %+v", got)
		}
	})
}

// A real step-ca keeps no assignments: the certificate and the configuration
// say who the device is.
func TestAuthorityWithoutAssignmentsIsAskedForASignOfLifeOnly(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		static := userIdentity(userID, "telemetry")
		w.auth = plain{w.ca}
		w.options = func(o *Options) { o.Static = []Identity{static} }
		w.on()
		w.connect()
		w.expect(userID, lifecycle.Unenrolled)
		w.wait(time.Hour)
		w.expect(systemID, lifecycle.Connected)
		if a, h := w.ca.count("assignments"), w.ca.count("heartbeat"); a != 0 || h < 10 {
			t.Errorf("%d lists, %d heartbeats", a, h)
		}
		o := w.onboarding(static)
		o.Identity = static
		if _, err := w.Connect(context.Background(), o); err != nil {
			t.Fatal(err)
		}
		if st := w.expect(userID, lifecycle.Connected); st.Identity != static {
			t.Errorf("identity %+v", st.Identity)
		}
		w.expect(systemID, lifecycle.Connected)
		_, err := w.Connect(context.Background(), o)
		problem(t, err, "already-connected")
		w.reboot(time.Minute)
		w.wait(time.Minute)
		w.expect(userID, lifecycle.Connected)
		if got := w.List(); len(got) != 2 || got[0].Identity.Kind != SystemAssigned {
			t.Errorf("list: %+v", got)
		}
	})
}

func TestReconnectKeepsTheIdentityAndWithdrawsTheOldKey(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		old := w.connect()
		w.wait(time.Minute)
		st, err := w.Reconnect(context.Background(), w.onboarding(systemIdentity()))
		must(t, err)
		if st.Identity != old.Identity || samePublicKey(st.Credential.Signer.Public(), old.Credential.Signer.Public()) {
			t.Errorf("got %+v", st)
		}
		if st.Previous != nil {
			t.Error("the old credential may still be used")
		}
		w.wait(time.Minute)
		if !w.ca.isRevoked(old.Credential) || w.ca.isRevoked(st.Credential) {
			t.Error("the old certificate was not withdrawn, or the new one was")
		}
		_, err = w.Reconnect(context.Background(), w.onboarding(userIdentity(otherID, "gw-0043")))
		problem(t, err, "claim-of-another")
		if w.standing(systemID).Credential != st.Credential {
			t.Error("a claim for another machine changed this one")
		}
	})
}

func TestReconnectWithoutAnIdentityNamesConnect(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		_, err := w.Reconnect(context.Background(), w.onboarding(systemIdentity()))
		if p := problem(t, err, "state-unenrolled"); p.Fix != fixConnect || p.State != lifecycle.Unenrolled || !errors.Is(err, ErrNotConnected) {
			t.Errorf("%+v", p)
		}
	})
}

func TestReconnectLeavesRejected(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		w.ca.set(func(a *authority) { a.deleted[systemID] = true })
		for range 2 {
			_ = w.token(systemID)
			w.wait(11 * time.Minute)
		}
		w.expect(systemID, lifecycle.Rejected)
		_, err := w.Reconnect(context.Background(), w.onboarding(systemIdentity()))
		must(t, err)
		w.expect(systemID, lifecycle.Connected)
		w.reboot(time.Minute)
		w.wait(time.Minute)
		w.expect(systemID, lifecycle.Connected)
	})
}

// ID9: two at once: one wins, the other is told who and since when, and
// nothing is half made.
func TestID9TwoReconnectsAtOnce(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		w.wait(time.Minute)
		slow := make(chan struct{})
		w.auth = slowly{w.ca, slow}
		w.Device.mu.Lock()
		w.Device.auth = nil
		w.Device.mu.Unlock()
		began := time.Now()
		var wg sync.WaitGroup
		first := w.onboarding(systemIdentity())
		wg.Go(func() {
			if _, err := w.Reconnect(context.Background(), first); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		for name, second := range map[string]func() error{
			"reconnect":  func() error { _, err := w.Reconnect(context.Background(), w.onboarding(systemIdentity())); return err },
			"connect":    func() error { _, err := w.Connect(context.Background(), w.onboarding(systemIdentity())); return err },
			"disconnect": func() error { return w.Disconnect(context.Background(), true, nil) },
			"renew":      func() error { return w.Renew(context.Background(), "", nil) },
			"adopt":      func() error { return w.Adopt(context.Background()) },
		} {
			var busy *BusyError
			if err := second(); !errors.Is(err, ErrBusy) || !errors.As(err, &busy) || busy.Op != "reconnect" || busy.PID != os.Getpid() || !busy.Since.Equal(began) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		close(slow)
		wg.Wait()
		w.expect(systemID, lifecycle.Connected)
		w.wait(time.Minute)
		must(t, w.Renew(context.Background(), "", nil))
	})
}

// slowly answers an enrolment only when told to.
type slowly struct {
	*authority
	answer chan struct{}
}

func (s slowly) Enroll(ctx context.Context, signer crypto.Signer, secret store.Secret) ([]*x509.Certificate, error) {
	<-s.answer
	return s.authority.Enroll(ctx, signer, secret)
}

func TestOpenRefusesMistakesOfTheCaller(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.open()
		for name, o := range map[string]Options{
			"no file":       {Clock: w.clock, Dial: w.o.Dial},
			"no clock":      {File: w.file, Dial: w.o.Dial},
			"no dial":       {File: w.file, Clock: w.clock},
			"odd algorithm": {File: w.file, Clock: w.clock, Dial: w.o.Dial, Algorithm: "DSA"},
		} {
			if _, err := Open(o); err == nil {
				t.Errorf("%s: taken", name)
			}
		}
		d, err := Open(Options{File: w.file, Clock: w.clock, Dial: w.o.Dial})
		must(t, err)
		if len(d.List()) != 0 || d.Warnings() != nil {
			t.Errorf("got %+v", d.List())
		}
	})
}
