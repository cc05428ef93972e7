package credential

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern/agent/lifecycle"
	"postern/store"
)

func TestFailedEnrolmentIsRepeatedWithTheSameKey(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		var failing atomic.Int32
		failing.Store(3)
		w.ca.set(func(a *authority) {
			a.fail = func(call string) error {
				if call == "enroll" && failing.Load() > 0 {
					failing.Add(-1)
					return errDown
				}
				return nil
			}
		})
		w.ca.assign(userIdentity(userID, "telemetry"))
		var pending []byte
		w.await(6*time.Minute, "failed", func() bool { return failing.Load() == 2 })
		records, err := w.file.Identities()
		must(t, err)
		i := slices.IndexFunc(records, func(r store.IdentityRecord) bool { return r.ClientID == userID })
		pending = records[i].Pending.PKCS8
		if st := w.expect(userID, lifecycle.Unenrolled); !strings.Contains(st.Reason, "connection refused") {
			t.Errorf("reason %q", st.Reason)
		}
		w.await(30*time.Minute, "enrolled", func() bool { return w.standing(userID).State == lifecycle.Connected })
		records, err = w.file.Identities()
		must(t, err)
		if !slices.Equal(pending, records[i].Current.PKCS8) {
			t.Error("the key was thrown away")
		}
		if got := w.seen(EventAssignmentFailed); len(got) != 3 {
			t.Errorf("%d events for 3 failures", len(got))
		}
		if len(w.seen(EventContactFailed)) != 0 {
			t.Error("a failed enrolment was taken for lost contact")
		}
	})
}

// ID5 for an enrolment: the secret is spent, the answer was lost.
func TestLostAnswerToAnEnrolmentIsAskedForAgainWithTheSameKey(t *testing.T) {
	for _, replays := range []bool{true, false} {
		in(t, func(t *testing.T, w *world) {
			w.on()
			w.connect()
			lost := false
			w.ca.set(func(a *authority) {
				a.replays = replays
				a.lose = func(call string) error {
					if call != "enroll" || lost {
						return nil
					}
					lost = true
					return errDown
				}
			})
			w.ca.assign(userIdentity(userID, "telemetry"))
			w.wait(10 * time.Minute)
			if !lost {
				t.Fatal("nothing was lost")
			}
			st := w.standing(userID)
			if got := st.State == lifecycle.Connected; got != replays {
				t.Errorf("authority that replays: %t, state %s (%s)", replays, st.State, st.Reason)
			}
			enrolments := w.ca.count("enroll")
			w.wait(day)
			if n := w.ca.count("enroll") - enrolments; n != 0 {
				t.Errorf("%d more tries", n)
			}
		})
	}
}

func TestCertificateForAnotherIdentityIsRefusedAtEnrolment(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		w.ca.set(func(a *authority) { a.forge = func(c *x509.Certificate) { c.Subject.CommonName = otherID } })
		w.ca.assign(userIdentity(userID, "telemetry"))
		w.wait(10 * time.Minute)
		if st := w.expect(userID, lifecycle.Unenrolled); !strings.Contains(st.LastError, "certificate refused") {
			t.Errorf("last error %q", st.LastError)
		}
	})
}

func TestLapsedUserIdentityIsEnrolledAnewWhenTheOperatorRenewsTheAssignment(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on().calm()
		id := userIdentity(userID, "telemetry")
		w.ca.assign(id)
		w.connect()
		w.ca.set(func(a *authority) {
			a.fail = func(call string) error {
				if call == "renew" {
					return errDown
				}
				return nil
			}
		})
		// Only the user-assigned one lapses: the other is connected anew in time.
		w.wait(60 * day)
		_, err := w.Reconnect(context.Background(), w.onboarding(systemIdentity()))
		must(t, err)
		w.wait(31 * day)
		st := w.expect(userID, lifecycle.Expired)
		if !strings.Contains(st.Fix, "assign telemetry gw-0042 --renew") {
			t.Errorf("fix %q", st.Fix)
		}
		w.expect(systemID, lifecycle.Connected)
		w.ca.assign(id)
		w.await(10*time.Minute, "enrolled anew", func() bool { return w.standing(userID).State == lifecycle.Connected })
	})
}

func TestSyncFetchesAtOnceWhatWasJustAssigned(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		if err := w.Sync(context.Background()); !errors.Is(err, ErrNotConnected) {
			t.Errorf("not connected: %v", err)
		}
		w.connect()
		w.ca.assign(userIdentity(userID, "telemetry"))
		must(t, w.Sync(context.Background()))
		w.expect(userID, lifecycle.Connected)
		w.ca.set(func(a *authority) { a.fail = down })
		if err := w.Sync(context.Background()); lifecycle.ClassOf(err) != lifecycle.ClassTransient {
			t.Errorf("without a link: %v", err)
		}
		w.ca.set(func(a *authority) { a.fail = nil })
		calls := w.ca.total()
		must(t, w.Expose("readable by uid 1001"))
		if p := problemOf(t, w.Sync(context.Background())); p.Fix != fixReconnect || w.ca.total() != calls {
			t.Errorf("exposed: %v after %d calls", p, w.ca.total()-calls)
		}
	})
}

func TestSyncAtAnAuthorityWithoutAssignmentsIsNothing(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.auth = plain{w.ca}
		w.on()
		w.connect()
		must(t, w.Sync(context.Background()))
		w.auth = bare{w.ca}
		w.Device.mu.Lock()
		w.Device.auth = nil
		w.Device.mu.Unlock()
		must(t, w.Sync(context.Background()))
		w.wait(time.Hour) // no heartbeat, no list: tokens are the only contact
		w.expect(systemID, lifecycle.Offline)
		must(t, w.token(systemID))
		w.expect(systemID, lifecycle.Connected)
	})
}
