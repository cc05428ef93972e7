package token

import (
	"fmt"
	"strconv"
	"strings"

	"postern/agent/credential"
	"postern/platform"
)

// Grant allows one caller one identity for some resources.
type Grant struct {
	Who       string   // "uid:1001", "user:telemetry", "group:plant", "listener:workload:web"
	Identity  string   // client id, or "system" for the system-assigned identity
	Resources []string // each exact, or a prefix with a trailing "*"
}

// Accounts resolves names that stand in grants. platform.Host satisfies it.
type Accounts interface {
	Account(user string) platform.Peer
	Member(p platform.Peer, group string) bool
}

// Grants decide who may have which token. Nil and empty Grants allow
// everything, as the vendor's agent does; with at least one grant only what is
// listed is allowed. Safe for concurrent use.
type Grants struct {
	rules    []rule
	confined map[platform.Peer]scope
	accounts *accounts
}

// scope is all that a workload may use; an empty part means everything.
type scope struct {
	identities []string // client ids, or "system"
	rule       rule     // its resources
}

const (
	maxGrants        = 1000 // firmware-notes/limits.md
	maxResources     = 256  // of one grant
	systemIdentity   = "system"
	noGrantsReason   = "no grants configured"
	unknownReason    = "the caller's account could not be found out"
	maxResourceBytes = 2048
)

// rule is a parsed Grant.
type rule struct {
	who      who
	system   bool
	clientID string
	exact    []string
	prefixes []string // without the star
	reason   string   // "grant 2": its place in the configuration, from 1
}

// NewGrants parses the grants; lookup resolves the names in them when a caller
// asks, not now, so that a user or a membership may come later. An error names
// the grant by its place.
func NewGrants(grants []Grant, lookup Accounts) (*Grants, error) {
	if len(grants) > maxGrants {
		return nil, fmt.Errorf("%d grants: at most %d are allowed", len(grants), maxGrants)
	}
	g := &Grants{accounts: newAccounts(lookup)}
	for i, grant := range grants {
		r, err := parseGrant(grant)
		if err != nil {
			return nil, fmt.Errorf("grant %d: %w", i+1, err)
		}
		if lookup == nil && (r.who.kind == whoUser || r.who.kind == whoGroup) {
			return nil, fmt.Errorf("grant %d: who %s: this system has no names of accounts", i+1, quote(grant.Who))
		}
		r.reason = "grant " + strconv.Itoa(i+1)
		g.rules = append(g.rules, r)
	}
	return g, nil
}

// Confine limits the holder of a workload's secret to these identities (client
// ids, or "system") and resources (exact, or a prefix with a trailing "*"); an
// empty list leaves that part open. It limits nobody else, and grants still
// have to allow what is left. Call it before the Grants are in use.
func (g *Grants) Confine(workload string, identities, resources []string) error {
	s := scope{}
	for _, id := range identities {
		if id != systemIdentity {
			if problem := badName(id); problem != "" {
				return fmt.Errorf("workload %s: identity %s: %s", quote(workload), quote(id), problem)
			}
			id = canonicalID(id)
		}
		s.identities = append(s.identities, id)
	}
	if len(resources) > 0 {
		r, err := parseGrant(Grant{Who: "workload:" + workload, Identity: systemIdentity, Resources: resources})
		if err != nil {
			return fmt.Errorf("workload %s: %w", quote(workload), err)
		}
		s.rule = r
	}
	if g.confined == nil {
		g.confined = make(map[platform.Peer]scope)
	}
	g.confined[platform.Peer("workload:"+workload)] = s
	return nil
}

// lacks says what a confined caller may not have; empty if it may.
func (s *scope) lacks(identity credential.Identity, resource string) string {
	covered := len(s.identities) == 0
	for _, id := range s.identities {
		covered = covered || id == identity.ClientID || id == systemIdentity && identity.Kind == credential.SystemAssigned
	}
	switch {
	case !covered:
		return "the workload's identities do not include this one"
	case s.rule.who != (who{}) && !s.rule.coversResource(resource):
		return "the workload's resources do not include this one"
	}
	return ""
}

func parseGrant(g Grant) (rule, error) {
	w, err := parseWho(g.Who)
	if err != nil {
		return rule{}, err
	}
	r := rule{who: w, system: g.Identity == systemIdentity}
	if !r.system {
		if problem := badName(g.Identity); problem != "" {
			return rule{}, fmt.Errorf("identity %s: %s; want a client id or %q", quote(g.Identity), problem, systemIdentity)
		}
		r.clientID = canonicalID(g.Identity)
	}
	if len(g.Resources) == 0 || len(g.Resources) > maxResources {
		return rule{}, fmt.Errorf("resource: want 1 to %d of them", maxResources)
	}
	for _, resource := range g.Resources {
		name, prefix := strings.CutSuffix(resource, "*")
		switch {
		case resource == "" || (name != "" && !validResource(name)):
			return rule{}, fmt.Errorf("resource %s: %w", quote(resource), ErrResource)
		case strings.Contains(name, "*"):
			return rule{}, fmt.Errorf("resource %s: a star may stand at the end only", quote(resource))
		case prefix:
			r.prefixes = append(r.prefixes, name)
		default:
			r.exact = append(r.exact, name)
		}
	}
	return r, nil
}

// canonicalID lower-cases GUIDs, in which case means nothing; any other client
// id is left alone, since two that differ in case may be two clients.
func canonicalID(id string) string {
	if len(id) != 36 {
		return id
	}
	for i, c := range []byte(id) {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		hex := c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
		if dash != (c == '-') || !dash && !hex {
			return id
		}
	}
	return strings.ToLower(id)
}

// Allow reports whether c may have a token of identity for resource, and why:
// the grant that allows it ("grant 2"), or what is missing. It reads no file
// except, at most twice a minute for each account, those that hold names.
func (g *Grants) Allow(c Caller, identity credential.Identity, resource string) (reason string, ok bool) {
	if g == nil {
		return noGrantsReason, true
	}
	if s, ok := g.confined[c.Peer]; ok {
		if problem := s.lacks(identity, resource); problem != "" {
			return problem, false
		}
	}
	if len(g.rules) == 0 {
		return noGrantsReason, true
	}
	for i := range g.rules {
		r := &g.rules[i]
		if r.coversIdentity(identity) && r.coversResource(resource) && g.matches(r.who, c) {
			return r.reason, true
		}
	}
	return g.missing(c, identity), false
}

// missing says what a refused caller lacks.
func (g *Grants) missing(c Caller, identity credential.Identity) string {
	named, identified := false, false
	for i := range g.rules {
		r := &g.rules[i]
		if !g.matches(r.who, c) {
			continue
		}
		named = true
		identified = identified || r.coversIdentity(identity)
	}
	switch {
	case identified:
		return "no grant of " + c.Peer.String() + " for this identity lists the resource"
	case named:
		return "no grant of " + c.Peer.String() + " names this identity"
	case c.Peer == platform.Unknown:
		return unknownReason
	}
	return "no grant names " + c.Peer.String()
}

// matches reports whether w means this caller. An unknown peer is nobody's
// account: without that condition it would equal a user name that does not
// resolve, which is Unknown too (TestUnknownPeerMatchesNoAccount).
func (g *Grants) matches(w who, c Caller) bool {
	if w.kind == whoListener {
		return c.Listener != "" && c.Listener == w.name
	}
	if c.Peer == platform.Unknown {
		return false
	}
	switch w.kind {
	case whoPeer:
		return c.Peer == w.peer
	case whoUser:
		return c.Peer == g.accounts.user(w.name)
	case whoGroup:
		return g.accounts.member(c.Peer, w.name)
	}
	return false
}

// Names reports whether a grant names p's account itself, by number or by name,
// and not only a group or a listener: whatever it grants, the account is known.
func (g *Grants) Names(p platform.Peer) bool {
	if g == nil {
		return false
	}
	for i := range g.rules {
		w := g.rules[i].who
		if (w.kind == whoPeer || w.kind == whoUser) && g.matches(w, Caller{Peer: p}) {
			return true
		}
	}
	return false
}

func (r *rule) coversIdentity(id credential.Identity) bool {
	if r.system {
		return id.Kind == credential.SystemAssigned
	}
	return id.ClientID != "" && id.ClientID == r.clientID
}

func (r *rule) coversResource(resource string) bool {
	for _, exact := range r.exact {
		if resource == exact {
			return true
		}
	}
	for _, prefix := range r.prefixes {
		if strings.HasPrefix(resource, prefix) {
			return true
		}
	}
	return false
}

// validResource reports whether s may be a resource: 1 to 2,048 bytes of
// printable ASCII without a space. Anything else cannot be an OAuth scope or
// audience (RFC 6749, appendix A.4; RFC 8707, section 2).
func validResource(s string) bool {
	if s == "" || len(s) > maxResourceBytes {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
