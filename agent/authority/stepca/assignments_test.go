package stepca_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"postern/agent/authority/authoritytest"
	"postern/agent/credential"
	"postern/agent/lifecycle"
)

func fingerprintOf(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

const goodList = `{"generation":41,"identities":[
 {"kind":"SystemAssigned","name":"gw-0042","client_id":"AAAA-1","object_id":"O-1","resource_id":"/subscriptions/TENANT-1/resourceGroups/g/x"},
 {"kind":"UserAssigned","name":"telemetry","client_id":"b","object_id":"o2","tenant_id":"T2","resource_id":"","enroll":{"ott":"one-time","expires_on":"1795348461"},"later":{}}]}`

func TestAssignmentsAreReadAndRemembered(t *testing.T) {
	authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
		d := newDouble(w)
		d.list, d.etag = goodList, `"41"`
		current := enrolled(t, d)
		got, err := d.driver().Assignments(t.Context(), current, "")
		if err != nil {
			t.Fatal(err)
		}
		if got.Generation != 41 || got.ETag != `"41"` || len(got.Identities) != 2 {
			t.Fatalf("got %+v", got)
		}
		system, user := got.Identities[0], got.Identities[1]
		if system.Identity != (credential.Identity{
			Kind: credential.SystemAssigned, Name: "gw-0042", ClientID: "aaaa-1", ObjectID: "o-1", TenantID: "tenant-1",
			ResourceID: "/subscriptions/TENANT-1/resourceGroups/g/x",
		}) || !system.Enroll.Empty() {
			t.Errorf("got %+v", system)
		}
		if user.Identity.Kind != credential.UserAssigned || user.Identity.TenantID != "t2" || user.Enroll.Reveal() != "one-time" {
			t.Errorf("got %+v", user)
		}
		if _, err := d.driver().Assignments(t.Context(), current, got.ETag); !errors.Is(err, credential.ErrNotModified) {
			t.Errorf("unchanged: %v", err)
		}
		d.etag = `"42"`
		if _, err := d.driver().Assignments(t.Context(), current, got.ETag); err != nil {
			t.Errorf("changed: %v", err)
		}
	})
}

func TestServerWithoutAssignments(t *testing.T) {
	authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
		d := newDouble(w)
		current := enrolled(t, d)
		if _, err := d.driver().Assignments(t.Context(), current, ""); !errors.Is(err, credential.ErrNoAssignments) {
			t.Errorf("got %v", err)
		}
		d.canned(http.StatusNotModified, nil, "")
		_, err := d.driver().Assignments(t.Context(), current, "")
		authoritytest.WantError(t, err, lifecycle.ClassTransient, "not modified")
		d.canned(http.StatusUnauthorized, nil, `{"message":"deleted"}`)
		_, err = d.driver().Assignments(t.Context(), current, "")
		authoritytest.WantError(t, err, lifecycle.ClassRejected, "deleted")
	})
}

func TestDoubtfulListsAreRefusedAsAWhole(t *testing.T) {
	one := func(fields string) string {
		return `{"generation":1,"identities":[{"kind":"UserAssigned","client_id":"good"},{` + fields + `}]}`
	}
	many := strings.Repeat(`{"kind":"UserAssigned","client_id":"%d"},`, 129)
	numbers := make([]any, 129)
	for i := range numbers {
		numbers[i] = i
	}
	for name, c := range map[string]struct{ body, words string }{
		"captive portal":        {"<html>", "not clean JSON"},
		"empty":                 {"", "not clean JSON"},
		"cut":                   {goodList[:len(goodList)-1], "not clean JSON"},
		"two lists":             {goodList + goodList, "not clean JSON"},
		"a field twice":         {`{"generation":1,"identities":[],"identities":[]}`, "not clean JSON"},
		"empty object":          {"{}", "not the JSON"},
		"no generation":         {`{"identities":[]}`, "not the JSON"},
		"negative generation":   {`{"generation":-1,"identities":[]}`, "not the JSON"},
		"huge generation":       {`{"generation":1e30,"identities":[]}`, "not the JSON"},
		"no identities":         {`{"generation":1}`, "not the JSON"},
		"identities are null":   {`{"generation":1,"identities":null}`, "not the JSON"},
		"an OAuth error":        {`{"error":"invalid_client"}`, "not the JSON"},
		"unknown kind":          {one(`"kind":"Shared","client_id":"x"`), `kind "Shared"`},
		"no kind":               {one(`"client_id":"x"`), `kind ""`},
		"no client id":          {one(`"kind":"UserAssigned"`), "without a client id"},
		"long client id":        {one(`"kind":"UserAssigned","client_id":"` + strings.Repeat("a", 513) + `"`), "without a client id"},
		"control character":     {one(`"kind":"UserAssigned","client_id":"a\u0000b"`), "not printable"},
		"long name":             {one(`"kind":"UserAssigned","client_id":"x","name":"` + strings.Repeat("a", 2049) + `"`), "too long"},
		"twice":                 {one(`"kind":"UserAssigned","client_id":"GOOD"`), "listed twice"},
		"client id is a number": {one(`"kind":"UserAssigned","client_id":1`), "not the JSON"},
		"too many":              {`{"generation":1,"identities":[` + strings.TrimSuffix(fmt.Sprintf(many, numbers...), ",") + `]}`, "129 identities"},
		"too long":              {`{"generation":1,"identities":[],"x":"` + strings.Repeat("a", 256<<10) + `"}`, "more than 262144 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
				d := newDouble(w)
				current := enrolled(t, d)
				d.list = c.body
				if d.list == "" {
					d.canned(http.StatusOK, nil, "")
				}
				_, err := d.driver().Assignments(t.Context(), current, "")
				authoritytest.WantError(t, err, lifecycle.ClassTransient, c.words)
			})
		})
	}
}

func TestOddETagIsForgotten(t *testing.T) {
	authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
		d := newDouble(w)
		current := enrolled(t, d)
		d.list = `{"generation":0,"identities":[]}`
		for _, d.etag = range []string{strings.Repeat("a", 257), "a\tb"} {
			got, err := d.driver().Assignments(t.Context(), current, "")
			if err != nil || got.ETag != "" {
				t.Errorf("got %q, %v", got.ETag, err)
			}
		}
	})
}
