package stepca

import (
	"strings"
	"testing"

	"postern/agent/authority"
)

func FuzzAssignments(f *testing.F) {
	for _, seed := range []string{
		`{"generation":41,"identities":[{"kind":"SystemAssigned","client_id":"a","enroll":{"ott":"x"}}]}`,
		`{"generation":0,"identities":[]}`, `{}`, `[]`, `{"generation":1,"identities":[{"kind":"UserAssigned","client_id":"A"},{"kind":"UserAssigned","client_id":"a"}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		list, err := parseAssignments(body)
		if err != nil {
			if strings.ContainsFunc(err.Error(), unprintable) {
				t.Fatalf("%q", err)
			}
			return
		}
		seen := map[string]bool{}
		for _, one := range list.Identities {
			id := one.Identity.ClientID
			if id == "" || seen[id] || strings.ToLower(id) != id {
				t.Fatalf("%+v", list)
			}
			seen[id] = true
		}
	})
}

func FuzzCertificates(f *testing.F) {
	f.Add([]byte(`{"certChain":["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]}`))
	f.Add([]byte(`{"crt":"","ca":"x"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		chain, err := certificates("op", &authority.Response{Status: 201, Body: body}, nil)
		if err == nil || len(chain) > 0 {
			t.Fatal("a certificate over no key at all")
		}
	})
}
