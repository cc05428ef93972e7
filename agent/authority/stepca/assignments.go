package stepca

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"postern/agent/authority"
	"postern/agent/authority/jws"
	"postern/agent/credential"
	"postern/store"
)

// maxListed bounds the list; how many of them a device takes is credential's to say.
const maxListed = 128

// Assignments asks which identities belong to this machine, by the certificate
// of its system-assigned identity. A server that does not know the call, as
// step-ca, gives credential.ErrNoAssignments. An answer with anything in it
// that is not understood is refused as a whole, because an identity that is
// missing in it would be destroyed here.
func (a *Authority) Assignments(ctx context.Context, current *credential.Credential, etag string) (credential.Assignments, error) {
	const op = "stepca: identities"
	var none credential.Assignments
	resp, err := a.call(ctx, call{
		op: op, path: "/v1/machines/self/identities", get: true, with: current, etag: etag, limit: authority.AssignmentsLimit,
	})
	if err != nil {
		return none, a.afterAlert(ctx, op, err)
	}
	switch {
	case resp.Status == http.StatusNotModified && etag != "":
		return none, credential.ErrNotModified
	case resp.Status == http.StatusNotFound:
		return none, credential.ErrNoAssignments
	case resp.Status != http.StatusOK:
		return none, a.refusal(ctx, op, resp)
	}
	list, err := parseAssignments(resp.Body)
	if err != nil {
		return none, malformed(op, err.Error(), nil)
	}
	if list.ETag = resp.Header.Get("ETag"); len(list.ETag) > 256 || strings.ContainsFunc(list.ETag, unprintable) {
		list.ETag = "" // then the next call asks for the whole list
	}
	return list, nil
}

type assignment struct {
	Kind       credential.Kind `json:"kind"`
	Name       string          `json:"name"`
	ClientID   string          `json:"client_id"`
	ObjectID   string          `json:"object_id"`
	TenantID   string          `json:"tenant_id"` // optional: the resource id names it too
	ResourceID string          `json:"resource_id"`
	Enroll     *struct {
		OTT string `json:"ott"`
	} `json:"enroll"`
}

// parseAssignments reads the list. Errors are in our own words.
func parseAssignments(body []byte) (credential.Assignments, error) {
	var none credential.Assignments
	if err := jws.CheckObject(body); err != nil {
		return none, fmt.Errorf("the list of identities is not clean JSON")
	}
	var answer struct {
		Generation *uint64       `json:"generation"`
		Identities *[]assignment `json:"identities"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Generation == nil || answer.Identities == nil {
		return none, fmt.Errorf("not the JSON of a list of identities")
	}
	if n := len(*answer.Identities); n > maxListed {
		return none, fmt.Errorf("%d identities, at most %d are taken", n, maxListed)
	}
	list := credential.Assignments{Generation: *answer.Generation}
	seen := map[string]bool{}
	for _, one := range *answer.Identities {
		identity, err := one.identity()
		if err != nil {
			return none, err
		}
		if seen[identity.ClientID] {
			return none, fmt.Errorf("the identity %s is listed twice", identity.ClientID)
		}
		seen[identity.ClientID] = true
		entry := credential.Assignment{Identity: identity}
		if one.Enroll != nil {
			entry.Enroll = store.NewSecret(one.Enroll.OTT)
		}
		list.Identities = append(list.Identities, entry)
	}
	return list, nil
}

func (a assignment) identity() (credential.Identity, error) {
	if a.Kind != credential.SystemAssigned && a.Kind != credential.UserAssigned {
		return credential.Identity{}, fmt.Errorf("an identity of the kind %q", authority.Clean(string(a.Kind), 32))
	}
	for _, field := range []string{a.Name, a.ClientID, a.ObjectID, a.TenantID, a.ResourceID} {
		if len(field) > 2048 || strings.ContainsFunc(field, unprintable) {
			return credential.Identity{}, fmt.Errorf("a name of an identity is too long or not printable")
		}
	}
	if a.ClientID == "" || len(a.ClientID) > maxName {
		return credential.Identity{}, fmt.Errorf("an identity without a client id")
	}
	identity := credential.Identity{
		Kind: a.Kind, Name: a.Name, ClientID: strings.ToLower(a.ClientID), ObjectID: strings.ToLower(a.ObjectID),
		TenantID: strings.ToLower(a.TenantID), ResourceID: a.ResourceID,
	}
	if identity.TenantID == "" {
		identity.TenantID = tenantOf(a.ResourceID)
	}
	return identity, nil
}

// tenantOf takes the tenant from "/subscriptions/{tenant}/…": a site has one of each.
func tenantOf(resourceID string) string {
	parts := strings.Split(resourceID, "/")
	if len(parts) > 2 && parts[0] == "" && strings.EqualFold(parts[1], "subscriptions") {
		return strings.ToLower(parts[2])
	}
	return ""
}
