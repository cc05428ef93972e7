package token

import (
	"testing"

	"postern/agent/credential"
	"postern/platform"
)

// TestWorkloadGetsNoMoreThanItsTable: the lists of a [[workload]] bound what
// the holder of its secret may have, and bound nobody else.
func TestWorkloadGetsNoMoreThanItsTable(t *testing.T) {
	const user = "7b1e4c1c-5d0a-4a9b-9d2a-3f1f7c9c1a11"
	system := credential.Identity{Kind: credential.SystemAssigned, ClientID: "5d0a4c1c-5d0a-4a9b-9d2a-3f1f7c9c1a22"}
	assigned := credential.Identity{Kind: credential.UserAssigned, ClientID: user}
	g, err := NewGrants(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ identities, resources []string }{
		"vault": {[]string{"system"}, []string{"https://vault.azure.net"}},
		"user":  {[]string{"7B1E4C1C-5D0A-4A9B-9D2A-3F1F7C9C1A11"}, nil},
		"site":  {nil, []string{"https://site/*"}},
		"open":  {nil, nil},
	} {
		if err := g.Confine(name, c.identities, c.resources); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		peer     platform.Peer
		identity credential.Identity
		resource string
		ok       bool
	}{
		{"workload:vault", system, "https://vault.azure.net", true},
		{"workload:vault", system, "https://management.azure.com", false},
		{"workload:vault", assigned, "https://vault.azure.net", false},
		{"workload:user", assigned, "https://anything", true},
		{"workload:user", system, "https://anything", false},
		{"workload:site", assigned, "https://site/a", true},
		{"workload:site", assigned, "https://sit", false},
		{"workload:open", assigned, "https://anything", true},
		{"uid:0", system, "https://management.azure.com", true},
		{"workload:other", system, "https://management.azure.com", true},
	} {
		if reason, ok := g.Allow(Caller{Peer: c.peer}, c.identity, c.resource); ok != c.ok {
			t.Errorf("%s, %s, %s: %v (%s), want %v", c.peer, c.identity.Kind, c.resource, ok, reason, c.ok)
		}
	}
}

// TestConfinementStillNeedsAGrant: with grants configured a workload needs one.
func TestConfinementStillNeedsAGrant(t *testing.T) {
	g, err := NewGrants([]Grant{{Who: "uid:1001", Identity: "system", Resources: []string{"*"}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Confine("web", []string{"system"}, nil); err != nil {
		t.Fatal(err)
	}
	if _, ok := g.Allow(Caller{Peer: "workload:web"}, credential.Identity{Kind: credential.SystemAssigned}, "https://x"); ok {
		t.Error("a workload that no grant names was let through")
	}
	for _, bad := range []struct{ identities, resources []string }{{[]string{""}, nil}, {nil, []string{"a*b"}}, {nil, []string{""}}} {
		if err := g.Confine("web", bad.identities, bad.resources); err == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
}
