package site

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"postern/agent/authority/jws"
)

// connectWith makes a machine whose key is key.
func (w *world) connectWith(name string, key crypto.Signer) *device {
	w.t.Helper()
	token := w.claim(ClaimRequest{Machine: name})
	return &device{key, chainOf(w.t, w.post(nil, "/sign", signBody(w.t, key, token)))}
}

func (w *world) keys() jose.JSONWebKeySet {
	w.t.Helper()
	a := w.do(nil, http.MethodGet, "/"+w.a.tenant+"/discovery/v2.0/keys", nil, "")
	if a.status != http.StatusOK {
		w.t.Fatalf("keys: %d %s", a.status, a.body)
	}
	return decodeAs[jose.JSONWebKeySet](w.t, a)
}

// verify checks a token with go-jose against the published keys.
func (w *world) verify(compact string) (map[string]any, error) {
	w.t.Helper()
	parsed, err := jwt.ParseSigned(compact, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return nil, err
	}
	var claims map[string]any
	var std jwt.Claims
	if err := parsed.Claims(w.keys(), &claims, &std); err != nil {
		return nil, err
	}
	return claims, std.ValidateWithLeeway(jwt.Expected{Issuer: w.a.issuerURL(), Time: w.clock.Now()}, 0)
}

func TestAccessTokensVerifyWithGoJOSE(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addVault()
	d := w.connect("gw")
	m, err := w.a.MachineByName(context.Background(), "gw")
	w.must(err)
	a := w.tokenFor(d, vault)
	got := decodeAs[oauthAnswer](t, a)
	if got.Type != "Bearer" || got.ExpiresIn != 86399 || a.header.Get("Content-Type") != "application/json; charset=utf-8" {
		t.Errorf("answer %s", a.body)
	}
	claims, err := w.verify(got.AccessToken)
	w.must(err)
	now := float64(start.Unix())
	for name, want := range map[string]any{
		"iss": testURL + "/" + w.a.tenant + "/v2.0", "aud": vault, "iat": now, "nbf": now, "exp": now + 86400, "sub": m.ObjectID, "oid": m.ObjectID,
		"tid": w.a.tenant, "azp": m.ClientID, "appid": m.ClientID, "idtyp": "app", "ver": "2.0", "xms_mirid": m.ResourceID,
	} {
		if claims[name] != want {
			t.Errorf("%s is %v, want %v", name, claims[name], want)
		}
	}
	if _, there := claims["cnf"]; there || len(claims) != 14 {
		t.Errorf("claims %v", claims)
	}
	again := decodeAs[oauthAnswer](t, w.tokenFor(d, vault)).AccessToken
	if payload(t, again)["jti"] == claims["jti"] {
		t.Error("two tokens have one id")
	}
	other := newWorld(t)
	if _, err := other.verify(got.AccessToken); err == nil {
		t.Error("another site's keys verify it")
	}
}

func TestTokenTypeCanBeRFC9068(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.TokenType = "at+jwt" })
	w.addVault()
	token := decodeAs[oauthAnswer](t, w.tokenFor(w.connect("gw"), vault)).AccessToken
	parsed, err := jws.Parse(token, 0)
	w.must(err)
	if parsed.Header.Type != "at+jwt" || parsed.Header.KeyID == "" {
		t.Errorf("header %+v", parsed.Header)
	}
}

// Every way in which a client names its key (firmware-notes/authorities.md), with every
// algorithm, with assertions that go-jose signed.
func TestAssertionsOfEveryKindAreTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addVault()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	w.must(err)
	devices := map[jose.SignatureAlgorithm]*device{jose.ES256: w.connect("ec"), jose.RS256: w.connectWith("rsa", rsaKey)}
	devices[jose.PS256] = devices[jose.RS256]
	for alg, d := range devices {
		der := d.leaf().Raw
		s256, s1 := sha256.Sum256(der), sha1.Sum(der)
		for name, header := range map[string]map[jose.HeaderKey]any{
			"x5t#S256 raw url":        {"x5t#S256": base64.RawURLEncoding.EncodeToString(s256[:])},
			"x5t#S256 padded url":     {"x5t#S256": base64.URLEncoding.EncodeToString(s256[:])},
			"x5t#S256 raw std":        {"x5t#S256": base64.RawStdEncoding.EncodeToString(s256[:])},
			"x5t#S256 padded std":     {"x5t#S256": base64.StdEncoding.EncodeToString(s256[:])},
			"x5t":                     {"x5t": base64.RawURLEncoding.EncodeToString(s1[:])},
			"x5t padded std":          {"x5t": base64.StdEncoding.EncodeToString(s1[:])},
			"kid as x5t#S256":         {"kid": base64.RawURLEncoding.EncodeToString(s256[:])},
			"kid as x5t":              {"kid": base64.RawURLEncoding.EncodeToString(s1[:])},
			"kid as upper hex SHA-1":  {"kid": strings.ToUpper(hex.EncodeToString(s1[:]))},
			"kid as hex SHA-256":      {"kid": hex.EncodeToString(s256[:])},
			"x5c":                     {"x5c": []string{base64.StdEncoding.EncodeToString(der)}},
			"x5c with its chain":      {"x5c": []string{base64.StdEncoding.EncodeToString(der), base64.StdEncoding.EncodeToString(d.chain[1].Raw)}},
			"x5t#S256 and x5c":        {"x5t#S256": base64.StdEncoding.EncodeToString(s256[:]), "x5c": []string{base64.StdEncoding.EncodeToString(der)}},
			"x5t#S256, x5t and a kid": {"x5t#S256": thumbprint(der), "x5t": base64.RawURLEncoding.EncodeToString(s1[:]), "kid": "mine"},
		} {
			t.Run(string(alg)+" "+name, func(t *testing.T) {
				opts := (&jose.SignerOptions{}).WithType("JWT")
				for k, v := range header {
					opts.WithHeader(k, v)
				}
				signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: d.key}, opts)
				w.must(err)
				now := w.clock.Now()
				assertion, err := jwt.Signed(signer).Claims(jwt.Claims{
					Issuer: d.clientID(), Subject: d.clientID(), Audience: jwt.Audience{w.a.issuerURL()}, ID: newID(),
					IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(10 * time.Minute)),
				}).Serialize()
				w.must(err)
				w.clock.add(time.Second) // turns of the gate
				a := w.token(nil, assertionForm(d, assertion, vault))
				if a.status != http.StatusOK {
					t.Fatalf("got %d %s", a.status, a.body)
				}
				claims, err := w.verify(decodeAs[oauthAnswer](t, a).AccessToken)
				if err != nil || claims["azp"] != d.clientID() {
					t.Errorf("%v %v", claims["azp"], err)
				}
			})
		}
	}
}

func TestRefusalsOfTheTokenEndpoint(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addVault()
	d := w.connect("gw")
	stranger := newWorld(t).connect("gw")
	assertionWith := func(change func(h, c map[string]any)) func() url.Values {
		return func() url.Values { return assertionForm(d, w.assertion(d, jws.ES256, change), vault) }
	}
	set := func(pairs ...string) func() url.Values {
		return func() url.Values {
			f := assertionForm(d, w.assertion(d, jws.ES256, nil), vault)
			for i := 0; i < len(pairs); i += 2 {
				if pairs[i+1] == "" {
					f.Del(pairs[i])
				} else {
					f[pairs[i]] = strings.Split(pairs[i+1], "|")
				}
			}
			return f
		}
	}
	at := func(d time.Duration) int64 { return w.clock.Now().Add(d).Unix() }
	reused := assertionForm(d, w.assertion(d, jws.ES256, nil), vault)
	if a := w.token(nil, reused); a.status != 200 {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	none := func(f url.Values) url.Values { f.Del("client_assertion"); f.Del("client_assertion_type"); return f }
	for _, tc := range []struct {
		name   string
		form   func() url.Values
		status int
		error  string
		number int // 0: none
	}{
		{"no grant", set("grant_type", ""), 400, "invalid_request", 900144},
		{"other grant", set("grant_type", "password"), 400, "unsupported_grant_type", 70003},
		{"no client", set("client_id", ""), 400, "invalid_request", 900144},
		{"doubled client", set("client_id", "a|b"), 400, "invalid_request", 9000411},
		{"doubled scope", set("scope", "a/.default|b/.default"), 400, "invalid_request", 9000411},
		{"secret", set("client_secret", "hunter2"), 401, "invalid_client", 7000215},
		{"assertion type", set("client_assertion_type", "x"), 400, "invalid_request", 900144},
		{"no authentication", func() url.Values { return none(set()()) }, 401, "invalid_client", 7000218},
		{"garbage assertion", set("client_assertion", "x"), 401, "invalid_client", 50027},
		{"empty assertion", func() url.Values { f := set()(); f.Set("client_assertion", ""); return f }, 401, "invalid_client", 50027},
		{"unsigned", set("client_assertion", base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`))+"."+base64.RawURLEncoding.EncodeToString([]byte(`{}`))+"."), 401, "invalid_client", 50027},
		{"stranger's key", func() url.Values { return assertionForm(d, w.assertion(stranger, jws.ES256, nil), vault) }, 401, "invalid_client", 700027},
		{"signed by another key", func() url.Values {
			return assertionForm(d, w.assertion(&device{newKey(t), d.chain}, jws.ES256, nil), vault)
		}, 401, "invalid_client", 700027},
		{"changed after signing", func() url.Values {
			parts := strings.Split(w.assertion(d, jws.ES256, nil), ".")
			other := strings.Split(w.assertion(d, jws.ES256, nil), ".")
			return assertionForm(d, parts[0]+"."+other[1]+"."+parts[2], vault)
		}, 401, "invalid_client", 700027},
		{"no key named", assertionWith(func(h, _ map[string]any) { delete(h, "x5t#S256") }), 401, "invalid_client", 700027},
		{"two keys named", assertionWith(func(h, _ map[string]any) { h["kid"] = thumbprint(w.connect("two").leaf().Raw) }), 401, "invalid_client", 700027},
		{"two keys named, the right one last", assertionWith(func(h, _ map[string]any) {
			h["x5t#S256"], h["kid"] = thumbprint(w.connect("four").leaf().Raw), thumbprint(d.leaf().Raw)
		}), 401, "invalid_client", 700027},
		{"another's thumbprint", assertionWith(func(h, _ map[string]any) { h["x5t#S256"] = thumbprint(w.connect("three").leaf().Raw) }), 401, "invalid_client", 700027},
		{"the intermediate's thumbprint", assertionWith(func(h, _ map[string]any) { h["x5t#S256"] = thumbprint(d.chain[1].Raw) }), 401, "invalid_client", 700027},
		{"issuer", assertionWith(func(_, c map[string]any) { c["iss"] = "x" }), 401, "invalid_client", 700021},
		{"subject", assertionWith(func(_, c map[string]any) { delete(c, "sub") }), 401, "invalid_client", 700021},
		{"audience", assertionWith(func(_, c map[string]any) { c["aud"] = testURL }), 401, "invalid_client", 700023},
		{"no audience", assertionWith(func(_, c map[string]any) { delete(c, "aud") }), 401, "invalid_client", 700023},
		{"no jti", assertionWith(func(_, c map[string]any) { delete(c, "jti") }), 401, "invalid_client", 50027},
		{"long jti", assertionWith(func(_, c map[string]any) { c["jti"] = strings.Repeat("x", 513) }), 401, "invalid_client", 50027},
		{"no expiry", assertionWith(func(_, c map[string]any) { delete(c, "exp") }), 401, "invalid_client", 700024},
		{"over", assertionWith(func(_, c map[string]any) { c["exp"] = at(-5*time.Minute - time.Second) }), 401, "invalid_client", 700024},
		{"too far ahead", assertionWith(func(_, c map[string]any) { c["exp"] = at(24*time.Hour + 5*time.Minute + time.Second) }), 401, "invalid_client", 700024},
		{"not yet", assertionWith(func(_, c map[string]any) { c["nbf"] = at(5*time.Minute + time.Second) }), 401, "invalid_client", 700024},
		{"issued in the future", assertionWith(func(_, c map[string]any) { c["iat"] = at(5*time.Minute + time.Second) }), 401, "invalid_client", 700024},
		{"used before", func() url.Values { return reused }, 400, "jti_known", 0},
		{"no resource", set("scope", ""), 400, "invalid_request", 900144},
		{"only openid", set("scope", "openid profile offline_access"), 400, "invalid_request", 900144},
		{"scope without default", set("scope", vault), 400, "invalid_scope", 70011},
		{"default alone", set("scope", "/.default"), 400, "invalid_scope", 70011},
		{"two scopes", set("scope", vault+"/.default "+vault+"/.default"), 400, "invalid_scope", 70011},
		{"scope and resource", set("resource", vault), 400, "invalid_scope", 70011},
		{"resource and audience", set("scope", "", "resource", vault, "audience", vault), 400, "invalid_scope", 70011},
		{"unknown resource", set("scope", "https://x/.default"), 400, "invalid_resource", 500011},
		{"wildcard as resource", set("scope", "*/.default"), 400, "invalid_resource", 500011},
		{"endless resource", set("scope", strings.Repeat("x", maxResource+1)+"/.default"), 400, "invalid_resource", 500011},
		{"control characters", set("scope", "", "resource", "a\x00\r\nb"), 400, "invalid_resource", 500011},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w.clock.add(time.Second)
			a := w.token(nil, tc.form())
			got := decodeAs[oauthAnswer](t, a)
			if a.status != tc.status || got.Error != tc.error || len(got.Codes) > 1 || tc.number != 0 && (len(got.Codes) == 0 || got.Codes[0] != tc.number) {
				t.Errorf("got %d %s", a.status, a.body)
			}
			if tc.number != 0 && !strings.HasPrefix(got.Description, "AADSTS") || got.Timestamp == "" || !validGUID(got.Trace) || !validGUID(got.Correlation) {
				t.Errorf("envelope %s", a.body)
			}
			if strings.ContainsAny(got.Description, "\r\n\x00") {
				t.Errorf("foreign characters are reflected: %q", got.Description)
			}
		})
	}
}

func TestAssertionsAtTheEdgeOfTheirTimesAreTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addVault()
	d := w.connect("gw")
	for name, times := range map[string][2]time.Duration{
		"a clock that is late": {-10 * time.Minute, -5 * time.Minute}, "a clock that is early": {5 * time.Minute, 15 * time.Minute}, "a day": {0, 24 * time.Hour},
	} {
		a := w.token(nil, assertionForm(d, w.assertion(d, jws.ES256, func(_, c map[string]any) {
			c["iat"], c["nbf"], c["exp"] = start.Add(times[0]).Unix(), start.Add(times[0]).Unix(), start.Add(times[1]).Unix()
			c["aud"] = []string{"https://elsewhere", w.a.tokenURL()}
		}), vault))
		if a.status != 200 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
}

func TestX5CThatOnlyChainsHereIsNotEnough(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addVault()
	d := w.connect("gw")
	// A leaf by our own intermediate that the ledger does not know.
	by, err := w.a.issuingCertificate(context.Background())
	w.must(err)
	key := newKey(t)
	template, err := leafTemplate(d.clientID(), asStrings(d.leaf().URIs), start, start.Add(time.Hour))
	w.must(err)
	cert, err := sign(template, key.Public(), by)
	w.must(err)
	forged := &device{key, []*x509.Certificate{cert, d.chain[1]}}
	a := w.token(nil, assertionForm(d, w.assertion(forged, jws.ES256, func(h, _ map[string]any) {
		delete(h, "x5t#S256")
		h["x5c"] = []string{base64.StdEncoding.EncodeToString(cert.Raw), base64.StdEncoding.EncodeToString(d.chain[1].Raw)}
	}), vault))
	if a.status != 401 {
		t.Errorf("got %d %s", a.status, a.body)
	}
	if a := w.tokenFor(forged, vault); a.status != 401 {
		t.Errorf("by TLS: %d %s", a.status, a.body)
	}
}
