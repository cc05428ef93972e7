package main

import (
	"slices"
	"strings"

	"postern/agent/authority/stepca"
	"postern/agent/control"
	"postern/agent/credential"
)

// meant is the identity of the configuration that a claim is for; the zero
// value if the authority says itself who the device becomes, as a site
// authority does. Another authority's certificate may carry any name: the
// person says whose it is, or the claim's name does, or there is no choice.
func meant(verb string, list []credential.Identity, named string, claim stepca.Claim) (credential.Identity, error) {
	if named != "" {
		if i := slices.IndexFunc(list, called(named)); i >= 0 {
			return list[i], nil
		}
		return credential.Identity{}, control.NewFault(control.ExitUsage, "unknown-identity", "postern config print",
			"%s: the configuration has no [[identity]] %q", verb, named)
	}
	if i := slices.IndexFunc(list, called(claim.Subject)); i >= 0 {
		return list[i], nil
	}
	if len(list) == 0 || slices.ContainsFunc(claim.SANs, bySite) {
		return credential.Identity{}, nil
	}
	system := func(id credential.Identity) bool { return id.Kind == credential.SystemAssigned }
	if i := slices.IndexFunc(list, system); i >= 0 {
		return list[i], nil
	}
	if len(list) == 1 {
		return list[0], nil
	}
	return credential.Identity{}, control.NewFault(control.ExitUsage, "which-identity", "sudo postern "+verb+" --identity NAME --claim-file FILE",
		"%s: the configuration has %d identities, and the claim is for %q: say which of them is meant", verb, len(list), claim.Subject)
}

// called finds an identity by name or client id.
func called(word string) func(credential.Identity) bool {
	return func(id credential.Identity) bool {
		return strings.EqualFold(id.ClientID, word) || strings.EqualFold(id.Name, word)
	}
}

// bySite recognises the names that a site authority writes.
func bySite(name string) bool { return strings.HasPrefix(name, credential.IdentityURN) }
