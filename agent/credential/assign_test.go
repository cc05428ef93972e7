package credential

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/agent/lifecycle"
	"postern/store"
)

func TestAssignedIdentityIsEnrolledWithAKeyOfItsOwn(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		sys := w.connect()
		id := userIdentity(userID, "telemetry")
		w.ca.assign(id)
		w.await(6*time.Minute, "enrolled", func() bool { st, ok := w.Standing(userID); return ok && st.State == lifecycle.Connected })
		st := w.standing(userID)
		if st.Identity != id || samePublicKey(st.Credential.Signer.Public(), sys.Credential.Signer.Public()) {
			t.Errorf("got %+v", st)
		}
		if got := w.seen(EventAssigned); len(got) != 1 || got[0].Identity != id {
			t.Errorf("events: %+v", got)
		}
		if got, err := w.Resolve(Selector{"mi_res_id", id.ResourceID}); err != nil || got.Identity != id {
			t.Errorf("resolve: %+v, %v", got, err)
		}
		if got, err := w.Resolve(Selector{}); err != nil || got.Identity.ClientID != systemID {
			t.Errorf("no selector: %+v, %v", got, err)
		}
		w.reboot(time.Minute)
		w.wait(time.Minute)
		w.expect(userID, lifecycle.Connected)
		if n := w.ca.count("enroll"); n != 2 {
			t.Errorf("%d enrolments", n)
		}
		// It renews like any other.
		w.calm()
		w.wait(50 * day)
		if w.standing(userID).Credential == st.Credential {
			t.Error("it was not renewed")
		}
	})
}

func TestUnassignedIdentityIsDestroyedAndSaidOnce(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		id := userIdentity(userID, "telemetry")
		w.ca.assign(id)
		w.connect()
		h, _ := w.Holder(userID)
		w.ca.unassign(userID)
		w.await(6*time.Minute, "gone", func() bool { _, ok := w.Standing(userID); return !ok })
		if h.Current() != nil {
			t.Error("the holder still gives the credential")
		}
		records, err := w.file.Identities()
		must(t, err)
		if len(records) != 1 {
			t.Errorf("%d records", len(records))
		}
		w.wait(time.Hour)
		if got := w.seen(EventUnassigned); len(got) != 1 || got[0].Identity != id {
			t.Errorf("events: %+v", got)
		}
		w.expect(systemID, lifecycle.Connected)
	})
}

// A failure never removes an identity, nor does anything that is no list for
// this device.
func TestNothingButAListForThisDeviceRemovesAnIdentity(t *testing.T) {
	no := func(class lifecycle.Class) func(*authority) {
		return func(a *authority) { a.fail = func(string) error { return refusal(class, "assignments", "x") } }
	}
	for name, change := range map[string]func(*authority){
		"no network":   func(a *authority) { a.fail = down },
		"transient":    no(lifecycle.ClassTransient),
		"clock":        no(lifecycle.ClassClock),
		"denied":       no(lifecycle.ClassDenied),
		"rejected":     no(lifecycle.ClassRejected),
		"not modified": func(a *authority) { a.fail = func(string) error { return ErrNotModified } },
		"no assignments": func(a *authority) {
			a.fail = func(call string) error { return map[string]error{"assignments": ErrNoAssignments}[call] }
		},
		"empty list": func(a *authority) { a.generation++; a.identities = map[string]Identity{} },
		"foreign list": func(a *authority) {
			a.generation++
			foreign := systemIdentity()
			foreign.ClientID = otherID
			a.identities = map[string]Identity{otherID: foreign}
		},
		"older generation": func(a *authority) { a.generation = 0; delete(a.identities, userID) },
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				w.on()
				w.ca.assign(userIdentity(userID, "telemetry"))
				w.connect()
				serial := w.serial(userID)
				w.ca.set(change)
				w.wait(time.Hour)
				st, ok := w.Standing(userID)
				if !ok || st.Credential == nil || st.Credential.Leaf().SerialNumber.String() != serial {
					t.Errorf("the identity is gone: %+v", st)
				}
				if len(w.seen(EventUnassigned)) != 0 {
					t.Error("said to be unassigned")
				}
			})
		})
	}
}

func TestOlderGenerationIsIgnoredAndWarnedAboutOnce(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.ca.set(func(a *authority) { a.generation = 40 })
		w.ca.assign(userIdentity(userID, "telemetry"))
		w.connect()
		w.ca.set(func(a *authority) { a.generation = 12 })
		w.wait(time.Hour)
		if got := w.seen(EventAssignmentFailed); len(got) != 1 || !strings.Contains(got[0].Reason, "12") || !strings.Contains(got[0].Reason, "41") {
			t.Errorf("events: %+v", got)
		}
		if got := w.Warnings(); len(got) != 1 || !strings.Contains(got[0], "old copy") {
			t.Errorf("warnings: %q", got)
		}
		w.expect(userID, lifecycle.Connected)
		w.ca.set(func(a *authority) { a.generation = 41 })
		w.ca.unassign(userID)
		w.await(6*time.Minute, "gone", func() bool { _, ok := w.Standing(userID); return !ok })
		if got := w.Warnings(); len(got) != 0 {
			t.Errorf("warnings: %q", got)
		}
	})
}

func TestListedWithoutEnrolmentStaysUnenrolledAndSaysWhatToDo(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		id := userIdentity(userID, "telemetry")
		w.ca.assign(id)
		w.ca.set(func(a *authority) { delete(a.offer, userID) })
		w.connect()
		st := w.expect(userID, lifecycle.Unenrolled)
		if !strings.Contains(st.Reason, "assign it again") || !strings.Contains(st.Fix, "assign telemetry gw-0042") {
			t.Errorf("reason %q, fix %q", st.Reason, st.Fix)
		}
		if got, err := w.Resolve(Selector{"client_id", userID}); err != nil || got.State != lifecycle.Unenrolled {
			t.Errorf("resolve: %+v, %v", got, err)
		}
		w.ca.assign(id)
		w.await(6*time.Minute, "enrolled", func() bool { return w.standing(userID).State == lifecycle.Connected })
	})
}

func TestFailedEnrolmentIsRepeatedWithTheSameKey(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		failing := 3
		w.ca.set(func(a *authority) {
			a.fail = func(call string) error {
				if call == "enroll" && failing > 0 {
					failing--
					return errDown
				}
				return nil
			}
		})
		w.ca.assign(userIdentity(userID, "telemetry"))
		var pending []byte
		w.await(6*time.Minute, "failed", func() bool { return failing == 2 })
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

func TestMoreThan64IdentitiesAreRefusedByName(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		w.ca.set(func(a *authority) {
			a.generation++
			for i := range 70 {
				id := userIdentity(fmt.Sprintf("5f0d9a3e-0000-4000-8000-%012d", i), fmt.Sprintf("app-%02d", i))
				a.identities[id.ClientID] = id
				a.offer[id.ClientID] = a.claimLocked(id)
			}
		})
		w.wait(6 * time.Minute)
		held := 0
		for _, st := range w.List() {
			if st.State == lifecycle.Connected {
				held++
			}
		}
		if held != maxIdentities {
			t.Errorf("%d identities held, want %d", held, maxIdentities)
		}
		said := strings.Join(w.Warnings(), "\n")
		if !strings.Contains(said, "app-69") || !strings.Contains(said, "at most 64") || strings.Contains(said, "app-62") {
			t.Errorf("warnings: %s", said)
		}
		if n := len(w.seen(EventAssignmentFailed)); n != 1 {
			t.Errorf("%d events", n)
		}
	})
}

func TestOddEntriesOfTheListAreIgnoredByName(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		odd := func(id string, kind Kind) Identity {
			i := userIdentity(userID, "odd")
			i.ClientID, i.Kind = id, kind
			return i
		}
		w.ca.set(func(a *authority) {
			a.generation++
			for _, id := range []Identity{odd("", UserAssigned), odd("a\x00b", UserAssigned), odd("a b", UserAssigned),
				odd(strings.Repeat("x", 129), UserAssigned), odd(userID, "Borrowed"), odd(otherID, SystemAssigned)} {
				a.identities[id.ClientID] = id
				a.offer[id.ClientID] = a.claimLocked(id)
			}
		})
		w.wait(10 * time.Minute)
		if got := w.List(); len(got) != 1 || got[0].Identity.ClientID != systemID {
			t.Errorf("identities: %+v", got)
		}
		if said := strings.Join(w.Warnings(), "\n"); !strings.Contains(said, "Borrowed") || !strings.Contains(said, otherID) {
			t.Errorf("warnings: %s", said)
		}
		w.expect(systemID, lifecycle.Connected)
	})
}

func TestConfiguredIdentityIsNotTakenAwayByTheList(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		static := userIdentity(userID, "telemetry")
		w.options = func(o *Options) { o.Static = []Identity{static} }
		w.on()
		w.connect()
		o := w.onboarding(static)
		o.Identity = static
		_, err := w.Connect(context.Background(), o)
		must(t, err)
		w.ca.unassign(userID)
		w.wait(time.Hour)
		w.expect(userID, lifecycle.Connected)
	})
}

// An authority may offer an enrolment anew to a device that does not say that
// it has the list: a restart must not fetch certificates a second time.
func TestListThatWasAppliedIsRememberedOverARestart(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.ca.assign(userIdentity(userID, "telemetry"))
		w.connect()
		w.reboot(time.Minute)
		w.wait(time.Minute)
		w.ca.assign(userIdentity(otherID, "backup"))
		w.wait(6 * time.Minute)
		w.reboot(time.Minute)
		w.wait(time.Minute)
		if got, want := w.ca.etags, []string{"", "2", "2", "3"}; !slices.Equal(slices.Compact(got), slices.Compact(want)) {
			t.Errorf("asked with %q, want %q", got, want)
		}
		// While something is left to do, the list is asked for in full.
		w.ca.set(func(a *authority) {
			a.fail = func(call string) error { return map[string]error{"enroll": errDown}[call] }
		})
		w.ca.assign(userIdentity("5f0d9a3e-0000-4000-8000-000000000009", "late"))
		w.wait(6 * time.Minute)
		w.reboot(time.Minute)
		w.wait(time.Minute)
		if got := w.ca.etags[len(w.ca.etags)-1]; got != "" {
			t.Errorf("asked with %q although an enrolment is missing", got)
		}
	})
}

func TestFactsOfTheConfigurationStandBesideTheRecord(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.ca.assign(userIdentity(userID, "telemetry"))
		w.connect()
		w.options = func(o *Options) {
			o.Static = []Identity{{Kind: UserAssigned, ClientID: strings.ToUpper(userID), ResourceID: "/configured/one"}}
		}
		w.reboot(time.Minute)
		got := w.standing(userID)
		if got.Identity.ResourceID != "/configured/one" || got.Identity.Name != "telemetry" || got.Credential.Identity != got.Identity {
			t.Errorf("got %+v", got.Identity)
		}
	})
}

func TestFactsOfTheListAreTakenOver(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		renamed := systemIdentity()
		renamed.Name, renamed.ResourceID, renamed.TenantID = "gw-0042-b", renamed.ResourceID+"-b", ""
		w.ca.set(func(a *authority) { a.generation++; a.identities[systemID] = renamed })
		w.wait(6 * time.Minute)
		got := w.standing(systemID)
		renamed.TenantID = systemIdentity().TenantID // not said: kept
		if got.Identity != renamed || got.Credential.Identity != renamed {
			t.Errorf("got %+v and %+v, want %+v", got.Identity, got.Credential.Identity, renamed)
		}
		w.reboot(time.Minute)
		if got := w.standing(systemID).Identity; got != renamed {
			t.Errorf("after a restart: %+v", got)
		}
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

// bare has neither assignments nor heartbeat.
type bare struct{ Authority }
