package main

import (
	"testing"

	"postern/agent/config"
	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/platform/platformtest"
	"postern/store"
)

// TestWithoutAPinnedRootNobodyIsBelieved: an enrolment record that lost its
// root must not make the public certificate authorities speak for ours.
func TestWithoutAPinnedRootNobodyIsBelieved(t *testing.T) {
	host := platformtest.NewSim(t)
	clock := lifecycle.NewClock(lifecycle.ClockOptions{Source: func() lifecycle.Reading { return lifecycle.Reading(host.Clock()) }})
	u := &upstream{cfg: config.Config{}, clock: clock}
	c, err := u.client("", "")
	if err != nil {
		t.Fatal(err)
	}
	if c.System || c.Roots != nil {
		t.Errorf("system roots %v, roots %v: want nobody", c.System, c.Roots)
	}
	if _, err := u.client("not a certificate", ""); err == nil {
		t.Error("a root that is no certificate was accepted")
	}
}

// TestPinnedRootSpeaksForItsOwnHostOnly: tokens from another host than the
// certificate authority are fetched under the system's roots, or those named.
func TestPinnedRootSpeaksForItsOwnHostOnly(t *testing.T) {
	for _, c := range []struct {
		authority, other string
		same             bool
	}{
		{"https://ca.site:8443", "", true},
		{"https://ca.site:8443", "https://ca.site:8443/tenant/v2.0", true},
		{"https://ca.site", "https://ca.site:443/x", true},
		{"https://ca.site:8443", "https://ca.site:9443", false},
		{"https://ca.site:8443", "https://ca.site.evil:8443", false},
		{"https://ca.site:8443", "https://login.example", false},
		{"https://ca.site:8443", "http://ca.site:8443", false},
	} {
		if got := sameHost(c.authority, c.other); got != c.same {
			t.Errorf("%s and %s: %v, want %v", c.authority, c.other, got, c.same)
		}
	}
}

// TestAuthorityIsAskedForAssignmentsUnlessToldNotTo: its list takes identities
// away, so that an operator can leave it out; the heartbeat stays.
func TestAuthorityIsAskedForAssignmentsUnlessToldNotTo(t *testing.T) {
	host := platformtest.NewSim(t)
	clock := lifecycle.NewClock(lifecycle.ClockOptions{Source: func() lifecycle.Reading { return lifecycle.Reading(host.Clock()) }})
	for value, want := range map[string]bool{"true": true, "false": false} {
		cfg, err := config.Load("", nil, config.Override{Key: "authority.assignments", Value: value})
		if err != nil {
			t.Fatal(err)
		}
		made, err := (&upstream{cfg: cfg, clock: clock}).Authority(store.DeviceRecord{AuthorityURL: "https://ca.site:8443"})
		if err != nil {
			t.Fatal(err)
		}
		_, asked := made.(credential.Assigner)
		_, beats := made.(credential.Heartbeater)
		if asked != want || !beats {
			t.Errorf("assignments = %s: asked %v, heartbeat %v", value, asked, beats)
		}
	}
}
