package stepca_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"postern/agent/authority/authoritytest"
	"postern/agent/authority/stepca"
	"postern/agent/lifecycle"
	"postern/store"
)

func TestClaimAloneIsEnoughToConnect(t *testing.T) {
	got, err := stepca.ParseClaim(claim(t, map[string]any{"exp": 1795348461, "sha": strings.Repeat("AB", 32)}, "gw-1", "urn:device:gw-1"))
	if err != nil {
		t.Fatal(err)
	}
	if got.URL != base || got.RootSHA256 != strings.Repeat("ab", 32) || got.Subject != "gw-1" || len(got.SANs) != 2 || !got.Expires.Equal(time.Unix(1795348461, 0)) {
		t.Errorf("got %+v", got)
	}
}

func TestClaimsOfOtherKinds(t *testing.T) {
	for name, c := range map[string]struct {
		change map[string]any
		url    string
		sans   string
	}{
		"factory certificate": {map[string]any{"aud": "https://CA.test:9443/1.0/sign#x5c/factory"}, "https://ca.test:9443", "gw-1"},
		"unversioned":         {map[string]any{"aud": []string{"step-ca", "https://ca.test/sign"}}, "https://ca.test", "gw-1"},
		"with a path":         {map[string]any{"aud": "https://ca.test/pki/1.0/sign"}, "https://ca.test/pki", "gw-1"},
		"no names":            {map[string]any{"sans": nil}, base, "gw-1"},
		"no root, no end":     {map[string]any{"sha": nil, "exp": nil}, base, "gw-1"},
	} {
		got, err := stepca.ParseClaim(claim(t, c.change, "gw-1"))
		if err != nil || got.URL != c.url || strings.Join(got.SANs, ",") != c.sans {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

func TestWhatIsNoClaimIsRefusedUnseen(t *testing.T) {
	const canary = "canary-77"
	for name, secret := range map[string]store.Secret{
		"empty":             store.NewSecret(""),
		"a password":        store.NewSecret(canary),
		"plain http":        claim(t, map[string]any{"aud": "http://ca.test/1.0/sign"}, canary),
		"another path":      claim(t, map[string]any{"aud": base + "/1.0/renew"}, canary),
		"no audience":       claim(t, map[string]any{"aud": nil}, canary),
		"audience of users": claim(t, map[string]any{"aud": "https://u:" + canary + "@ca.test/1.0/sign"}, canary),
		"query":             claim(t, map[string]any{"aud": base + "/1.0/sign?x=/sign"}, canary),
		"no subject":        claim(t, map[string]any{"sub": nil}, canary),
		"empty name":        claim(t, nil, canary, ""),
		"control character": claim(t, nil, canary, "a\x00b"),
		"long name":         claim(t, nil, canary, strings.Repeat("a", 513)),
		"many names":        claim(t, nil, append([]string{canary}, strings.Split(strings.Repeat("a ", 32), " ")...)...),
		"short root":        claim(t, map[string]any{"sha": "ab"}, canary),
		"root is no hex":    claim(t, map[string]any{"sha": strings.Repeat("xy", 32)}, canary),
		"names are text":    claim(t, map[string]any{"sans": canary}, canary),
		"end is text":       claim(t, map[string]any{"exp": canary}, canary),
	} {
		_, err := stepca.ParseClaim(secret)
		if !errors.Is(err, stepca.ErrClaim) || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestEnrollWithoutAClaimContactsNobody(t *testing.T) {
	authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
		d := newDouble(w)
		_, err := d.driver().Enroll(t.Context(), authoritytest.NewKey(t), store.NewSecret("password"))
		authoritytest.WantError(t, err, lifecycle.ClassDenied, "not a claim")
		if len(w.Net.Dialled()) > 0 {
			t.Errorf("dialled %v", w.Net.Dialled())
		}
	})
}

func FuzzParseClaim(f *testing.F) {
	f.Add("eyJhbGciOiJFUzI1NiJ9.eyJhdWQiOiJodHRwczovL2EvMS4wL3NpZ24iLCJzdWIiOiJhIn0.AAAA")
	f.Add("x.y.z")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := stepca.ParseClaim(store.NewSecret(s))
		if err != nil {
			return
		}
		if _, err := stepca.New(stepca.Config{URL: got.URL}); err != nil || got.Subject == "" || len(got.SANs) == 0 {
			t.Fatalf("%+v: %v", got, err)
		}
	})
}
