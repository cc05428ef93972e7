package credential

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/agent/lifecycle"
	"postern/store"
)

const day = lifecycle.Day

// calm makes the loop of long simulated lives coarser, and leaves the look at
// the files to tests of its own.
func (w *world) calm() *world {
	w.Device.mu.Lock()
	defer w.Device.mu.Unlock()
	w.tick, w.check.at = 5*time.Minute, 1<<62
	return w
}

// brisk gives the loop its real tick again.
func (w *world) brisk() *world {
	w.Device.mu.Lock()
	w.tick, w.check.at = maxTick, 0
	w.Device.mu.Unlock()
	w.nudge()
	w.wait(0)
	return w
}

func TestCertificateIsRenewedOnceAt45DaysWithStableJitter(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on().calm()
		first := w.connect()
		due := first.RenewAt
		early, late := first.NotAfter.Add(-45*day-4*day-12*time.Hour), first.NotAfter.Add(-45*day)
		if due.Before(early) || due.After(late) {
			t.Fatalf("due %s, want between %s and %s", due, early, late)
		}
		w.reboot(time.Hour)
		w.calm()
		if again := w.standing(systemID).RenewAt; !again.Equal(due) {
			t.Errorf("the jitter was drawn again: %s, then %s", due, again)
		}
		w.wait(time.Until(due) - time.Minute)
		if n := w.ca.count("renew"); n != 0 {
			t.Fatalf("%d renewals before it was due", n)
		}
		w.wait(10 * time.Minute)
		second := w.standing(systemID)
		if n := w.ca.count("renew"); n != 1 || !second.NotAfter.After(first.NotAfter) {
			t.Fatalf("%d renewals; ends %s, before %s", n, second.NotAfter, first.NotAfter)
		}
		if samePublicKey(first.Credential.Signer.Public(), second.Credential.Signer.Public()) {
			t.Error("the new certificate is over the old key")
		}
		w.wait(30 * day)
		if n := w.ca.count("renew"); n != 1 {
			t.Errorf("%d renewals of one certificate", n)
		}
		if got := w.seen(EventRenewed); len(got) != 1 || !got[0].Until.Equal(second.NotAfter) {
			t.Errorf("events: %+v", got)
		}
	})
}

func TestPendingKeyIsOnDiskBeforeTheAuthorityHearsOfIt(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		var stored []byte
		w.ca.set(func(a *authority) {
			a.fail = func(call string) error {
				if call == "renew" {
					records, err := w.file.Identities()
					if err == nil && records[0].Pending != nil {
						stored = records[0].Pending.PKCS8
					}
				}
				return nil
			}
		})
		w.wait(time.Minute)
		must(t, w.Renew(context.Background(), systemID, nil))
		records, err := w.file.Identities()
		must(t, err)
		if stored == nil || !slices.Equal(stored, records[0].Current.PKCS8) || records[0].Pending != nil {
			t.Errorf("pending before the call: %t; the key in use is it: %t", stored != nil, slices.Equal(stored, records[0].Current.PKCS8))
		}
	})
}

// ID5: the authority made the change, the answer was lost.
func TestID5LostAnswerUsesThePendingKeyAgain(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on().calm()
		w.connect()
		lost := 0
		w.ca.set(func(a *authority) {
			a.lose = func(call string) error {
				if call != "renew" || lost == 4 {
					return nil
				}
				lost++
				return errDown
			}
		})
		w.wait(time.Until(w.standing(systemID).RenewAt) + time.Minute)
		w.reboot(time.Minute) // the pending key outlives a restart
		w.calm()
		w.await(24*time.Hour, "renewed", func() bool { return len(w.seen(EventRenewed)) > 0 })
		if n := len(w.ca.keys); n != 2 {
			t.Errorf("certificates were asked for over %d keys, want 2: the first and the pending one", n)
		}
		if n := w.ca.count("renew"); n != 5 {
			t.Errorf("%d attempts, want 5", n)
		}
		w.expect(systemID, lifecycle.Connected)
	})
}

// Seconds are all that a certificate knows: both end at the same one.
func TestRenewalInTheSecondOfTheConnectIsTaken(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		serial, end := w.serial(systemID), w.standing(systemID).NotAfter
		must(t, w.Renew(context.Background(), systemID, nil))
		st := w.expect(systemID, lifecycle.Connected)
		if w.serial(systemID) == serial || !st.NotAfter.Equal(end) {
			t.Errorf("serial %s, was %s; ends %s, was %s", w.serial(systemID), serial, st.NotAfter, end)
		}
		must(t, w.token(systemID))
	})
}

// ID1: whatever is wrong with the certificate, the old credential works on.
func TestID1BadCertificateIsRefusedAndTheOldOneWorksOn(t *testing.T) {
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	foreign := newAuthority(t)
	for name, row := range map[string]struct {
		forge  func(*x509.Certificate)
		mangle func([]*x509.Certificate) []*x509.Certificate
	}{
		"another key":         {forge: func(c *x509.Certificate) { c.PublicKey = other.Public() }},
		"another subject":     {forge: func(c *x509.Certificate) { c.Subject.CommonName = otherID }},
		"already expired":     {forge: func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(time.Second) }},
		"valid from tomorrow": {forge: func(c *x509.Certificate) { c.NotBefore = c.NotBefore.Add(day) }},
		"no client use":       {forge: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }},
		"ends earlier":        {forge: func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(day) }},
		"a megabyte": {forge: func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: make([]byte, 1<<20)}}
		}},
		"no chain":     {mangle: func([]*x509.Certificate) []*x509.Certificate { return nil }},
		"chain of 20":  {mangle: func(c []*x509.Certificate) []*x509.Certificate { return append(c, repeat(foreign.root, 18)...) }},
		"foreign leaf": {mangle: func([]*x509.Certificate) []*x509.Certificate { return repeat(foreign.root, 2) }},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				w.on()
				w.connect()
				serial := w.serial(systemID)
				w.wait(time.Minute)
				w.ca.set(func(a *authority) { a.forge, a.mangle = row.forge, row.mangle })
				err := w.Renew(context.Background(), systemID, nil)
				if !errors.Is(err, ErrCertificate) || lifecycle.ClassOf(err) != lifecycle.ClassTransient {
					t.Fatalf("got %v, want a refused certificate of class transient", err)
				}
				problem(t, err, "certificate-refused")
				st := w.expect(systemID, lifecycle.Connected)
				if w.serial(systemID) != serial || st.LastError == "" {
					t.Errorf("serial %s, was %s; last error %q", w.serial(systemID), serial, st.LastError)
				}
				must(t, w.token(systemID))
				w.ca.set(func(a *authority) { a.forge, a.mangle = nil, nil })
				w.wait(time.Minute)
				must(t, w.Renew(context.Background(), systemID, nil))
			})
		})
	}
}

// ID3: never faster than 30 s, whatever the authority says, and not before it
// wants to be asked again.
func TestID3RenewalIsNeverTriedFasterThan30Seconds(t *testing.T) {
	for name, answer := range map[string]error{
		"503":                 &lifecycle.Error{Class: lifecycle.ClassTransient, Op: "x"},
		"429, retry after 0":  &lifecycle.Error{Class: lifecycle.ClassTransient, Op: "x", Throttled: true, Answered: true},
		"429, retry after -1": &lifecycle.Error{Class: lifecycle.ClassTransient, Op: "x", Throttled: true, RetryAfter: -time.Second},
		"429, an hour":        &lifecycle.Error{Class: lifecycle.ClassTransient, Op: "x", Throttled: true, RetryAfter: time.Hour, Answered: true},
		"429, ten years":      &lifecycle.Error{Class: lifecycle.ClassTransient, Op: "x", Throttled: true, RetryAfter: 1e5 * time.Hour, Answered: true},
		"denied":              &lifecycle.Error{Class: lifecycle.ClassDenied, Op: "x", Answered: true},
		"refused":             &lifecycle.Error{Class: lifecycle.ClassRejected, Op: "x", Answered: true},
		"clock":               &lifecycle.Error{Class: lifecycle.ClassClock, Op: "x", Answered: true},
		"unclassified":        errors.New("something else"),
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				w.ca.life = 2 * day // renewed on its last day, when the waits are shortest
				w.on().calm()
				w.connect()
				var tries []time.Time
				w.ca.set(func(a *authority) {
					a.fail = func(call string) error {
						if call != "renew" {
							return nil
						}
						tries = append(tries, time.Now())
						return answer
					}
				})
				serial := w.serial(systemID)
				w.wait(time.Until(w.standing(systemID).RenewAt) + 13*time.Hour)
				floor := max(30*time.Second, min(retryAfter(answer), 6*time.Hour))
				if len(tries) < 3 {
					t.Fatalf("%d tries", len(tries))
				}
				for i := 1; i < len(tries); i++ {
					if gap := tries[i].Sub(tries[i-1]); gap < floor {
						t.Fatalf("try %d came %s after the one before, floor is %s", i, gap, floor)
					}
				}
				if w.standing(systemID).LastError == "" || len(w.seen(EventRenewalFailed))+len(w.seen(EventRenewalRefused)) < len(tries) {
					t.Error("an attempt left no trace")
				}
				if c := w.standing(systemID).Credential; c.Leaf().SerialNumber.String() != serial {
					t.Error("the working credential was touched")
				}
			})
		})
	}
}

// An authority whose certificates are due the moment they are issued must not
// be asked every few seconds (a renewal loop of 4 s was a known fault of others).
func TestCertificatesThatAreDueAtOnceDoNotMakeALoop(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		w.ca.set(func(a *authority) { a.life = 10 * time.Second })
		end := time.Now()
		w.ca.forge = func(c *x509.Certificate) {
			c.NotBefore = time.Now().Add(-400 * day)
			end = end.Add(time.Second)
			c.NotAfter = end.Add(90 * day)
		}
		w.wait(time.Minute)
		must(t, w.Renew(context.Background(), "", nil))
		before := w.ca.count("renew")
		w.wait(time.Hour)
		if n := w.ca.count("renew") - before; n == 0 || n > 120 {
			t.Errorf("%d renewals in an hour, want 1 to 120", n)
		}
	})
}

// ST9: a renewal waits before its CSR, not after.
func TestFullDiskStopsARenewalBeforeTheAuthorityIsAsked(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		full := false
		w.wrap = func(f identityFile) identityFile {
			return &meddled{identityFile: f, before: func() error {
				if full {
					return errors.New("no space left on device")
				}
				return nil
			}}
		}
		w.on().calm()
		w.connect()
		must(t, w.token(systemID)) // proven: nothing else to store
		w.wait(time.Hour)
		full = true
		w.wait(time.Until(w.standing(systemID).RenewAt) + day)
		if n := w.ca.count("renew"); n != 0 {
			t.Errorf("the authority was asked %d times", n)
		}
		if got := w.seen(EventStoreFailed); len(got) == 0 || !strings.Contains(got[0].Reason, "no space") {
			t.Errorf("events: %+v", got)
		}
		must(t, w.token(systemID))
		full = false
		w.await(7*time.Hour, "renewed", func() bool { return w.ca.count("renew") == 1 })
	})
}

// meddled is the file with something happening before and after each commit.
type meddled struct {
	identityFile
	before func() error
	after  func() error
}

func (m *meddled) Update(f func(*store.IdentityTx) error) error {
	if m.before != nil {
		if err := m.before(); err != nil {
			return err
		}
	}
	if err := m.identityFile.Update(f); err != nil {
		return err
	}
	if m.after != nil {
		return m.after()
	}
	return nil
}

// A commit that happened although it was reported as failed must not leave the
// device with a key that memory does not know.
func TestCommitThatHappenedButFailedIsSeen(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		lie := false
		w.wrap = func(f identityFile) identityFile {
			return &meddled{identityFile: f, after: func() error {
				if lie {
					return errors.New("fsync: input/output error")
				}
				return nil
			}}
		}
		w.on()
		w.connect()
		w.wait(time.Minute)
		first := w.serial(systemID)
		w.ca.set(func(a *authority) {
			a.fail = func(call string) error { lie = call == "renew"; return nil } // the swap is the commit after it
		})
		if err := w.Renew(context.Background(), systemID, nil); err == nil {
			t.Fatal("the failure was swallowed")
		}
		lie = false
		w.ca.set(func(a *authority) { a.fail = nil })
		now := w.serial(systemID)
		records, err := w.file.Identities()
		must(t, err)
		stored, err := parseChain(records[0].Current.Chain)
		must(t, err)
		if now == first || stored[0].SerialNumber.String() != now {
			t.Errorf("memory has %s, the file %s, before it was %s", now, stored[0].SerialNumber, first)
		}
		must(t, w.token(systemID))
	})
}

func TestRenewByHandSaysEachStepAndRefusesWithACommand(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		problem(t, w.Renew(context.Background(), "", nil), "state-unenrolled")
		w.connect()
		problem(t, w.Renew(context.Background(), otherID, nil), "unknown-identity")
		w.wait(time.Minute)
		var steps []string
		must(t, w.Renew(context.Background(), strings.ToUpper(systemID), func(s string) { steps = append(steps, s) }))
		if len(steps) != 3 || !strings.Contains(steps[1], "90 d") {
			t.Errorf("steps: %q", steps)
		}
		problem(t, w.Renew(context.Background(), "", nil), "too-soon")
		w.wait(time.Minute)
		w.ca.set(func(a *authority) { a.fail = down })
		if p := problem(t, w.Renew(context.Background(), "", nil), "authority-unreachable"); p.State != lifecycle.Offline {
			t.Errorf("state %s", p.State)
		}
		w.wait(time.Minute)
		w.ca.set(func(a *authority) {
			a.fail = func(string) error { return refusal(lifecycle.ClassDenied, "rekey", "policy") }
		})
		problem(t, w.Renew(context.Background(), "", nil), "refused")
	})
}
