package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"postern/agent/control"
	"postern/agent/credential"
	"postern/agent/lifecycle"
)

// TestStatusShowsNoTimeThatNobodyKnows: an agent that was just built and has
// neither seen its authority nor issued anything knows no floor, no end and no
// contact.
func TestStatusShowsNoTimeThatNobodyKnows(t *testing.T) {
	st := control.Status{
		State: lifecycle.Unenrolled, Now: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC), Started: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC),
		Identities: []control.Identity{{Name: "gw", State: lifecycle.Unenrolled}}, Authority: control.Authority{URL: "https://ca.test"},
	}
	page := strings.Join(statusLines(st, false), "\n")
	if strings.Contains(page, "0001-") || !strings.Contains(page, "floor not known yet") || !strings.Contains(page, "last contact never") {
		t.Errorf("the page:\n%s", page)
	}
	doc, err := json.Marshal(st)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(doc), "0001-") || strings.Contains(string(doc), "floor") {
		t.Errorf("the document: %s", doc)
	}
	st.Clock.Floor = time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	if page := strings.Join(statusLines(st, false), "\n"); !strings.Contains(page, "floor 2026-11-20") {
		t.Errorf("the page:\n%s", page)
	}
}

// TestStatusDoesNotCallUnprovenThingsNeverHeard: in a boot of 1970 what is on
// the disk cannot be dated, and the words must not say that it is not there.
func TestStatusDoesNotCallUnprovenThingsNeverHeard(t *testing.T) {
	st := control.Status{
		State: lifecycle.ClockUntrusted, Now: time.Unix(7, 0).UTC(), Started: time.Unix(5, 0).UTC(),
		Authority: control.Authority{URL: "https://ca.test", Undated: true}, Tokens: control.Tokens{Held: 2},
	}
	page := strings.Join(statusLines(st, false), "\n")
	for _, want := range []string{"last contact before this start", "0 cached · 2 held back until the clock is right"} {
		if !strings.Contains(page, want) {
			t.Errorf("want %q in the page:\n%s", want, page)
		}
	}
	if strings.Contains(page, "never") {
		t.Errorf("the page:\n%s", page)
	}
}

// TestDeviceWithACertificateHasHadContact: the contact is written at most once
// in half a minute, the certificate at once.
func TestDeviceWithACertificateHasHadContact(t *testing.T) {
	at := func(wall time.Time) lifecycle.Instant {
		return lifecycle.Instant{Wall: wall, BootID: "b"}
	}
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	stored := &lifecycle.Contact{}
	stored.Restore(now, lifecycle.Failure{})
	certified := []credential.Standing{{NotAfter: now.AddDate(0, 1, 0)}}
	for _, tc := range []struct {
		name    string
		contact *lifecycle.Contact
		wall    time.Time
		list    []credential.Standing
		last    time.Time
		undated bool
	}{
		{"a new device", &lifecycle.Contact{}, now, []credential.Standing{{}}, time.Time{}, false},
		{"power went before the contact was stored", &lifecycle.Contact{}, now, certified, time.Time{}, true},
		{"stored", stored, now.Add(time.Hour), certified, now, false},
		{"stored, in 1970", stored, time.Unix(7, 0), nil, time.Time{}, true},
	} {
		last, undated := lastContact(tc.contact, at(tc.wall), tc.list)
		if !last.Equal(tc.last) || undated != tc.undated {
			t.Errorf("%s: %v, undated %t", tc.name, last, undated)
		}
	}
}
