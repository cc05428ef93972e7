package oauth

import (
	"strconv"
	"strings"

	"postern/agent/authority"
)

// maxCode is how much of an error code is shown.
const maxCode = 64

// code is the OAuth error word, cut.
func (r *refusal) code() string {
	if !r.readable {
		return ""
	}
	return authority.Clean(r.said.Error, maxCode)
}

// aadsts stands before Entra ID's number in a description: "AADSTS700016: …".
const aadsts = "AADSTS"

// number is Entra ID's number of an error, 0 if there is none. Nothing is
// decided by it (clients must branch on the error word alone): it is for people.
func (r *refusal) number() int64 {
	if len(r.said.Codes) > 0 {
		return r.said.Codes[0]
	}
	_, after, found := strings.Cut(r.said.Description, aadsts)
	if !found {
		return 0
	}
	digits := len(after) - len(strings.TrimLeft(after, "0123456789"))
	if digits < 4 || digits > 8 {
		return 0
	}
	n, err := strconv.ParseInt(after[:digits], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// reason is the server's own words behind ours.
func (r *refusal) reason() string {
	said := authority.Clean(r.said.Description, authority.MaxText)
	ours := explain(r.number(), said)
	if r.algorithm() {
		ours = "the signature's algorithm is refused: set alg under [token] to the one that the server registered for this client"
	}
	switch {
	case ours == "":
		return said
	case said == "":
		return ours
	}
	return authority.Clean(ours+": "+said, authority.MaxText)
}

// unsupportedAlgorithm is what Entra ID answered where PS256 was not accepted.
const unsupportedAlgorithm = 5002730

// algorithm says that the refusal is about the algorithm of the assertion.
// There is no silent second try with another one: which is right is the
// operator's to know (firmware-notes/faults.md, UP12).
func (r *refusal) algorithm() bool {
	return r.number() == unsupportedAlgorithm || strings.Contains(strings.ToLower(r.said.Description), "signing algorithm")
}

// explain words the numbers that deserve it (firmware-notes/authorities.md).
func explain(number int64, said string) string {
	switch number {
	case 700027:
		if strings.Contains(strings.ToLower(said), "expired") {
			return "the key has expired, or the clock is wrong"
		}
		return "the key was removed, or is not replicated yet"
	case 700024:
		return "the clock is wrong"
	case 7000222:
		return "the onboarding secret has expired"
	case 7000215:
		return "the onboarding secret is wrong"
	case 700016, 70001:
		return "the application was deleted or disabled, or belongs to another tenant"
	case 90002:
		return "the tenant is unknown"
	case 500011, 50001, 70011:
		return "the resource is unknown or the scope malformed"
	case 53003:
		return "Conditional Access forbids it"
	case 501051:
		return "the resource asks for a role assignment, and there is none"
	case 90006, 90024, 90033, 50196:
		return "the service is busy, or asks to slow down"
	}
	return ""
}
