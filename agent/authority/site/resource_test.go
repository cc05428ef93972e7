package site

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"postern/agent/authority/jws"
)

func TestResourcesAreNamedInThreeWays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := context.Background()
	for _, r := range []string{vault, "https://management.azure.com/", "api://x", "00000003-0000-0000-c000-000000000000"} {
		w.must(w.a.AddResource(ctx, Resource{Identifier: r}))
	}
	d := w.connect("gw")
	for _, tc := range []struct{ parameter, value, audience string }{
		{"scope", vault + "/.default", vault},
		{"scope", vault + "/.default openid offline_access profile", vault},
		{"scope", "openid  " + vault + "/.default", vault},
		{"scope", "https://management.azure.com//.default", "https://management.azure.com/"},
		{"scope", "https://management.azure.com/.default", "https://management.azure.com"},
		{"scope", "api://x/.default", "api://x"},
		{"scope", "00000003-0000-0000-c000-000000000000/.default", "00000003-0000-0000-c000-000000000000"},
		{"resource", vault, vault},
		{"resource", vault + "/", vault + "/"},
		{"audience", vault, vault},
	} {
		w.clock.add(time.Second)
		a := w.token(d, url.Values{
			"grant_type": {"client_credentials"}, "client_id": {strings.ToUpper(d.clientID())}, tc.parameter: {tc.value},
			"client_info": {"1"}, "x-client-SKU": {"msal.js.node"}, "x-client-VER": {"1", "2"},
		})
		if a.status != http.StatusOK {
			t.Errorf("%s=%s: %d %s", tc.parameter, tc.value, a.status, a.body)
			continue
		}
		if aud := payload(t, decodeAs[oauthAnswer](t, a).AccessToken)["aud"]; aud != tc.audience {
			t.Errorf("%s=%s: aud %v, want %v", tc.parameter, tc.value, aud, tc.audience)
		}
	}
}

func TestLifetimesAndWildcards(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := context.Background()
	for _, r := range []Resource{
		{Identifier: "*", Wildcard: true},
		{Identifier: "https://storage*", Wildcard: true, Life: time.Hour},
		{Identifier: "https://storage.test", Life: 5 * time.Minute},
	} {
		w.must(w.a.AddResource(ctx, r))
	}
	d := w.connect("gw")
	for resource, want := range map[string]int{
		"https://anything": 86399, "https://storage.other": 3599, "https://storage.test": 299, "https://storage.test/": 299,
	} {
		a := w.tokenFor(d, resource)
		got := decodeAs[oauthAnswer](t, a)
		if a.status != 200 || got.ExpiresIn != want {
			t.Errorf("%s: %d, expires in %d, want %d", resource, a.status, got.ExpiresIn, want)
			continue
		}
		c := payload(t, got.AccessToken)
		if c["exp"].(float64)-c["iat"].(float64) != float64(want+1) || c["aud"] != resource {
			t.Errorf("%s: claims %v", resource, c)
		}
	}
	for _, resource := range []string{"a*b", "*", "a b", "a\r\nb", "\x00", "é", strings.Repeat("x", maxResource+1)} {
		if a := w.tokenFor(d, resource); a.status != 400 || decodeAs[oauthAnswer](t, a).Error != "invalid_resource" {
			t.Errorf("%.20q passes the wildcard: %d %s", resource, a.status, a.body)
		}
	}
	w.must(w.a.RemoveResource(ctx, "*"))
	if a := w.tokenFor(d, "https://anything"); a.status != 400 {
		t.Errorf("after removal: %d", a.status)
	}
}

func TestResourcesAreChecked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := context.Background()
	for _, r := range []Resource{
		{},
		{Identifier: "a b"},
		{Identifier: "a\n"},
		{Identifier: strings.Repeat("x", maxResource+1)},
		{Identifier: "*"},
		{Identifier: "a*"},
		{Identifier: "a", Wildcard: true},
		{Identifier: "*a", Wildcard: true},
		{Identifier: "a**", Wildcard: true},
		{Identifier: "a", Life: time.Minute},
		{Identifier: "a", Life: 25 * time.Hour},
		{Identifier: "a", Life: -1},
	} {
		if err := w.a.AddResource(ctx, r); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: got %v", r, err)
		}
	}
	if err := w.a.RemoveResource(ctx, "a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
	w.must(w.a.AddResource(ctx, Resource{Identifier: "b/"}))
	w.must(w.a.AddResource(ctx, Resource{Identifier: "b", Life: time.Hour}))
	w.must(w.a.AddResource(ctx, Resource{Identifier: "a"}))
	list, err := w.a.Resources(ctx)
	w.must(err)
	if len(list) != 2 || list[0].Identifier != "a" || list[0].Life != 24*time.Hour || list[1].Life != time.Hour {
		t.Errorf("got %+v", list)
	}
}

func TestTokenRequestsOfOneIdentityAreGated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addVault()
	d, other := w.connect("gw"), w.connect("other")
	got := map[int]int{}
	var last answer
	for range tokensBurst + 5 {
		last = w.tokenFor(d, vault)
		got[last.status]++
	}
	if got[200] != tokensBurst || got[429] != 5 {
		t.Errorf("got %v", got)
	}
	if string(last.body) != "Too Many Requests\n" || last.header.Get("Retry-After") != "1" || !strings.HasPrefix(last.header.Get("Content-Type"), "text/plain") {
		t.Errorf("got %q %v", last.body, last.header)
	}
	if a := w.tokenFor(other, vault); a.status != 200 {
		t.Errorf("another identity: %d", a.status)
	}
	w.clock.add(time.Second)
	for i := range tokensPerSecond + 1 {
		if a := w.tokenFor(d, vault); (a.status == 200) != (i < tokensPerSecond) {
			t.Fatalf("request %d after a second: %d", i, a.status)
		}
	}
}

func TestStrangersDoNotUseUpAnIdentitysTurns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addVault()
	d := w.connect("gw")
	for range tokensBurst + 5 {
		a := w.token(nil, url.Values{"grant_type": {"client_credentials"}, "client_id": {d.clientID()}, "resource": {vault}})
		if a.status != 401 {
			t.Fatalf("got %d", a.status)
		}
	}
	if a := w.tokenFor(d, vault); a.status != 200 {
		t.Errorf("got %d", a.status)
	}
}

func TestAnAssertionIsTakenOnceWhateverHappens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addVault()
	d, e := w.connect("gw"), w.connect("other")
	form := assertionForm(d, w.assertion(d, jws.ES256, nil), vault)
	use := func() int { return w.token(nil, form).status }
	if s := use(); s != 200 {
		t.Fatalf("first use: %d", s)
	}
	for name, event := range map[string]func(){
		"at once": func() {}, "after a restart": w.restart, "five minutes later": func() { w.clock.add(5 * time.Minute) },
		"at the end of its skew": func() { w.clock.set(start.Add(10 * time.Minute)) },
	} {
		w.clock.set(start)
		event()
		if s := use(); s == 200 {
			t.Errorf("used again %s", name)
		}
	}
	// Another identity may use the same id.
	jti := payload(t, form.Get("client_assertion"))["jti"]
	w.clock.set(start)
	a := w.token(nil, assertionForm(e, w.assertion(e, jws.ES256, func(_, c map[string]any) { c["jti"] = jti }), vault))
	if a.status != 200 {
		t.Errorf("another identity: %d %s", a.status, a.body)
	}
}

func TestAssertionIdsAreSweptAndBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addVault()
	d := w.connect("gw")
	kept := func() (n, m int) {
		w.must(w.a.view(func(t *tx) error {
			return errors.Join(
				each(t, bucketReplay, func(string, replayRecord) error { n++; return nil }),
				each(t, bucketReplayUntil, func(string, replayRecord) error { m++; return nil }))
		}))
		return n, m
	}
	ask := func() int {
		w.clock.add(time.Second)
		return w.token(nil, assertionForm(d, w.assertion(d, jws.ES256, nil), vault)).status
	}
	for range 20 {
		if s := ask(); s != 200 {
			t.Fatalf("got %d", s)
		}
	}
	w.clock.add(time.Hour)
	for range 5 {
		ask()
	}
	if n, m := kept(); n != 5 || m != 5 || w.a.replayCount(d.clientID(), 0) != 5 {
		t.Errorf("%d and %d ids are kept, %d counted", n, m, w.a.replayCount(d.clientID(), 0))
	}
	w.restart()
	if n := w.a.replayCount(d.clientID(), 0); n != 5 {
		t.Errorf("%d counted after a restart", n)
	}
	w.a.replayCount(d.clientID(), maxReplays-5)
	if s := ask(); s != http.StatusTooManyRequests {
		t.Errorf("beyond the bound: %d", s)
	}
	if a := w.tokenFor(d, vault); a.status != 200 {
		t.Errorf("by certificate: %d", a.status)
	}
}

func TestFormsAreReadStrictly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addVault()
	d := w.connect("gw")
	good := url.Values{"grant_type": {"client_credentials"}, "client_id": {d.clientID()}, "resource": {vault}}.Encode()
	for _, tc := range []struct {
		name, kind, query, body string
		status                  int
	}{
		{"good", "application/x-www-form-urlencoded", "", good, 200},
		{"with a charset", "application/x-www-form-urlencoded; charset=UTF-8", "?client-request-id=x&scope=ignored", good, 200},
		{"no type", "", "", good, 400},
		{"json", "application/json", "", `{"grant_type":"client_credentials"}`, 400},
		{"query is not the form", "application/x-www-form-urlencoded", "?" + good, "", 400},
		{"broken escape", "application/x-www-form-urlencoded", "", good + "&x=%zz", 400},
		{"semicolons", "application/x-www-form-urlencoded", "", good + ";x", 400},
		{"too large", "application/x-www-form-urlencoded", "", good + "&x=" + strings.Repeat("a", maxBody), 413},
	} {
		h := http.Header{}
		if tc.kind != "" {
			h.Set("Content-Type", tc.kind)
		}
		if a := w.do(d, http.MethodPost, w.tokenPath()+tc.query, h, tc.body); a.status != tc.status {
			t.Errorf("%s: got %d %s", tc.name, a.status, a.body)
		}
	}
	id := "0F8FAD5B-D9CB-469F-A165-70867728950E"
	a := w.do(nil, http.MethodPost, w.tokenPath(), http.Header{"Client-Request-Id": {id}}, "")
	if got := decodeAs[oauthAnswer](t, a); got.Correlation != strings.ToLower(id) {
		t.Errorf("correlation %q", got.Correlation)
	}
}

func TestOtherTenantsAreUnknown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, tenant := range []string{"common", "organizations", "consumers", newGUID(), "x"} {
		for _, path := range []string{"/v2.0/.well-known/openid-configuration", "/discovery/v2.0/keys", "/oauth2/v2.0/token", "/oauth2/v2.0/authorize"} {
			method := http.MethodGet
			if strings.HasSuffix(path, "token") {
				method = http.MethodPost
			}
			a := w.do(nil, method, "/"+tenant+path, nil, "")
			got := decodeAs[oauthAnswer](t, a)
			if a.status != 400 || got.Error != "invalid_request" || got.Codes[0] != 90002 {
				t.Errorf("%s%s: %d %s", tenant, path, a.status, a.body)
			}
		}
	}
	if a := w.do(nil, http.MethodGet, w.tokenPath(), nil, ""); a.status != http.StatusMethodNotAllowed {
		t.Errorf("GET of the token endpoint: %d", a.status)
	}
}

func TestDiscoveryDocuments(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	base := testURL + "/" + w.a.tenant
	for _, path := range []string{
		"/.well-known/openid-configuration", "/.well-known/oauth-authorization-server", "/" + strings.ToUpper(w.a.tenant) + "/v2.0/.well-known/openid-configuration",
	} {
		a := w.do(nil, http.MethodGet, path, nil, "")
		got := decodeAs[map[string]any](t, a)
		if a.status != 200 || got["issuer"] != base+"/v2.0" || got["token_endpoint"] != base+"/oauth2/v2.0/token" || got["jwks_uri"] != base+"/discovery/v2.0/keys" ||
			got["authorization_endpoint"] != base+"/oauth2/v2.0/authorize" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
		if m, ok := got["token_endpoint_auth_methods_supported"].([]any); !ok || len(m) != 2 || m[0] != "private_key_jwt" || m[1] != "tls_client_auth" {
			t.Errorf("methods %v", got["token_endpoint_auth_methods_supported"])
		}
		if m, ok := got["mtls_endpoint_aliases"].(map[string]any); !ok || m["token_endpoint"] != base+"/oauth2/v2.0/token" {
			t.Errorf("aliases %v", got["mtls_endpoint_aliases"])
		}
	}
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		if a := w.do(nil, method, "/"+w.a.tenant+"/oauth2/v2.0/authorize?response_type=code", nil, ""); a.status != 400 {
			t.Errorf("authorize: %d", a.status)
		}
	}
}

func TestSigningKeysAreRotatedAndOldOnesPublishedUntilTheirLastTokenIsDead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addVault()
	d := w.connect("gw")
	kid := func(token string) string {
		parsed, err := jws.Parse(token, 0)
		w.must(err)
		return parsed.Header.KeyID
	}
	token := func() string {
		t.Helper()
		a := w.tokenFor(d, vault)
		if a.status != 200 {
			t.Fatalf("token: %d %s", a.status, a.body)
		}
		return decodeAs[oauthAnswer](t, a).AccessToken
	}
	first := kid(token())
	w.clock.add(60 * 24 * time.Hour)
	d = w.rekey(d)
	if n := len(w.keys().Keys); n != 1 {
		t.Errorf("%d keys are published", n)
	}
	w.clock.set(start.Add(84 * 24 * time.Hour))
	if n := len(w.keys().Keys); n != 2 {
		t.Errorf("a week before the change %d keys are published", n)
	}
	w.clock.set(start.Add(90*24*time.Hour - time.Second))
	last := token()
	if kid(last) != first {
		t.Error("changed too early")
	}
	w.clock.add(time.Second)
	w.restart()
	next := token()
	if kid(next) == first {
		t.Error("not changed after 90 days")
	}
	w.clock.set(start.Add(91*24*time.Hour - 2*time.Second))
	if _, err := w.verify(last); err != nil {
		t.Errorf("a living token of the old key: %v", err)
	}
	w.clock.add(tokenLife)
	if keys := w.keys(); len(keys.Keys) != 1 || keys.Keys[0].KeyID != kid(next) {
		t.Errorf("after its last token died the old key is still published: %v", keys)
	}
}

func TestAClockThatJumpsDestroysNoSigningKeyInUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addVault()
	d := w.connect("gw")
	token := decodeAs[oauthAnswer](t, w.tokenFor(d, vault)).AccessToken
	w.clock.set(time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC))
	_, _, err := w.a.signingKeys(context.Background())
	w.must(err)
	w.clock.set(start.Add(time.Hour))
	w.restart()
	if _, err := w.verify(token); err != nil {
		t.Errorf("a living token: %v", err)
	}
	if a := w.tokenFor(d, vault); a.status != 200 {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

func TestARegistrationThatChangesNothingIsNotWritten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addVault()
	before := len(w.audit())
	w.addVault()
	if n := len(w.audit()); n != before {
		t.Errorf("%d audit records more", n-before)
	}
}
