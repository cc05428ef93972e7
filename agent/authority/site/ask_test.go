package site

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"postern/agent/authority/jws"
)

// list asks for the machine's identities.
func (w *world) list(d *device) assignmentList {
	w.t.Helper()
	a := w.do(d, http.MethodGet, "/v1/machines/self/identities", nil, "")
	if a.status != http.StatusOK {
		w.t.Fatalf("status %d: %s", a.status, a.body)
	}
	return decodeAs[assignmentList](w.t, a)
}

// fetch enrolls the identity called name, which must be on offer.
func (w *world) fetch(d *device, name string) *device {
	w.t.Helper()
	for _, i := range w.list(d).Identities {
		if i.Name == name && i.Enroll != nil {
			return w.sign(i.Enroll.OTT)
		}
	}
	w.t.Fatalf("%s is not on offer", name)
	return nil
}

func (w *world) tokenPath() string { return "/" + w.a.tenant + "/oauth2/v2.0/token" }

var formHeader = http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}

// token asks for a token with the form, over d's certificate if there is one.
func (w *world) token(d *device, form url.Values) answer {
	w.t.Helper()
	return w.do(d, http.MethodPost, w.tokenPath(), formHeader, form.Encode())
}

// tokenFor asks for a token by certificate for a resource.
func (w *world) tokenFor(d *device, resource string) answer {
	w.t.Helper()
	return w.token(d, url.Values{"grant_type": {"client_credentials"}, "client_id": {d.clientID()}, "resource": {resource}})
}

const vault = "https://vault.azure.net"

func (w *world) addVault() {
	w.t.Helper()
	w.must(w.a.AddResource(context.Background(), Resource{Identifier: vault}))
}

// assertion makes a client assertion; change may alter header and claims.
func (w *world) assertion(d *device, alg string, change func(header, claims map[string]any)) string {
	w.t.Helper()
	now := w.clock.Now()
	header := map[string]any{"typ": "JWT", "x5t#S256": thumbprint(d.leaf().Raw)}
	claims := map[string]any{
		"iss": d.clientID(), "sub": d.clientID(), "aud": w.a.tokenURL(), "jti": newID(),
		"iat": now.Unix() - 60, "nbf": now.Unix() - 60, "exp": now.Unix() + 300,
	}
	if change != nil {
		change(header, claims)
	}
	token, err := jws.Sign(d.key, alg, header, claims)
	if err != nil {
		w.t.Fatal(err)
	}
	return token
}

func assertionForm(d *device, assertion, resource string) url.Values {
	return url.Values{
		"grant_type": {"client_credentials"}, "client_id": {d.clientID()}, "scope": {resource + "/.default"},
		"client_assertion_type": {assertionType}, "client_assertion": {assertion},
	}
}

// payload reads the claims of a compact token without verifying it.
func payload(t testing.TB, compact string) map[string]any {
	t.Helper()
	parts := strings.Split(compact, ".")
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if err := json.NewDecoder(bytes.NewReader(raw)).Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}
