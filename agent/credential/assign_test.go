package credential

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/agent/lifecycle"
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
			for _, id := range []Identity{
				odd("", UserAssigned), odd("a\x00b", UserAssigned), odd("a b", UserAssigned),
				odd(strings.Repeat("x", 129), UserAssigned), odd(userID, "Borrowed"), odd(otherID, SystemAssigned),
			} {
				a.identities[id.ClientID] = id
				a.offer[id.ClientID] = a.claimLocked(id)
			}
		})
		good := userIdentity("5f0d9a3e-0000-4000-8000-000000000009", "good")
		w.ca.assign(good)
		w.wait(10 * time.Minute)
		if got := w.List(); len(got) != 2 {
			t.Errorf("identities: %+v", got)
		}
		w.expect(good.ClientID, lifecycle.Connected)
		if said := strings.Join(w.Warnings(), "\n"); !strings.Contains(said, "Borrowed") || !strings.Contains(said, otherID) {
			t.Errorf("warnings: %s", said)
		}
		w.expect(systemID, lifecycle.Connected)
	})
}

// The device's own identity cannot be exchanged by calling it user-assigned.
func TestListCannotChangeTheKindOfAnIdentity(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		serial := w.serial(systemID)
		w.auth = relabelled{w.ca}
		w.Device.mu.Lock()
		w.Device.auth = nil
		w.Device.mu.Unlock()
		w.wait(10 * time.Minute)
		if w.serial(systemID) != serial || w.standing(systemID).Identity.Kind != SystemAssigned || w.ca.count("enroll") != 1 {
			t.Errorf("got %+v", w.standing(systemID).Identity)
		}
		if said := strings.Join(w.Warnings(), "\n"); !strings.Contains(said, "said to be UserAssigned") {
			t.Errorf("warnings: %s", said)
		}
	})
}

// relabelled says that the system-assigned identity is user-assigned and offers its enrolment.
type relabelled struct{ *authority }

func (r relabelled) Assignments(ctx context.Context, with *Credential, _ string) (Assignments, error) {
	list, err := r.authority.Assignments(ctx, with, "")
	for i := range list.Identities {
		list.Identities[i].Identity.Kind = UserAssigned
		list.Identities[i].Enroll = r.claim(list.Identities[i].Identity)
	}
	return list, err
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

// bare has neither assignments nor heartbeat.
type bare struct{ Authority }
