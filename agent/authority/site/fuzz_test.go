package site

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"

	"postern/agent/authority/jws"
)

// fuzzSite is an authority for fuzzing, without a listener.
func fuzzSite(f *testing.F) *world {
	f.Helper()
	w := newWorld(f)
	w.addVault()
	return w
}

// FuzzOneTimeToken: nothing but the tokens that were made here is read as one.
func FuzzOneTimeToken(f *testing.F) {
	w := fuzzSite(f)
	good := w.claim(ClaimRequest{Machine: "gw"})
	f.Add(good)
	f.Add(newWorld(f).claim(ClaimRequest{Machine: "gw"}))
	f.Add("")
	f.Add("a.b.c")
	f.Add(strings.Repeat(".", 100))
	parts := strings.Split(good, ".")
	f.Add(parts[0] + "." + parts[1] + ".")
	f.Add("eyJhbGciOiJub25lIn0." + parts[1] + ".")
	f.Fuzz(func(t *testing.T, token string) {
		if c, err := w.a.readOneTime(token); err == nil && token != good {
			t.Fatalf("taken: %+v", c)
		}
	})
}

// FuzzSignRequest: whatever is posted, the answer is step-ca's JSON, and
// without a claim never a certificate.
func FuzzSignRequest(f *testing.F) {
	w := fuzzSite(f)
	f.Add(`{"csr":"` + strings.ReplaceAll(csrFor(f, newKey(f), "x", "urn:a:b"), "\n", `\n`) + `","ott":"x.y.z","notAfter":"4s"}`)
	f.Add(`{"csr":null}`)
	f.Add(`[]`)
	f.Fuzz(func(t *testing.T, body string) {
		for _, path := range []string{"/1.0/sign", "/rekey", "/revoke", "/renew"} {
			r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
			rec := httptest.NewRecorder()
			w.a.Handler().ServeHTTP(rec, r)
			var v struct {
				Status  int    `json:"status"`
				Message string `json:"message"`
			}
			if err := json.Unmarshal(rec.Body.Bytes(), &v); err != nil || v.Status != rec.Code || v.Status < 400 || v.Status >= 500 && v.Status != 501 || v.Message == "" {
				t.Fatalf("%s: %d %s", path, rec.Code, rec.Body)
			}
		}
	})
}

// FuzzCSR: a certificate has the names of its token and the key of its CSR,
// whatever else the CSR asks for.
func FuzzCSR(f *testing.F) {
	f.Add([]byte("x"), "id", "urn:postern:identity:a")
	key := newKey(f)
	f.Add([]byte(csrFor(f, key, "id", "urn:postern:identity:a")), "id", "urn:postern:identity:a")
	f.Add([]byte(csrFor(f, key, "", "other", "1.2.3.4", "a@b")), "id", "urn:postern:identity:a")
	f.Fuzz(func(t *testing.T, pem []byte, subject, san string) {
		raw, err := json.Marshal(string(pem))
		if err != nil {
			t.Skip()
		}
		var csr certificateRequest
		if json.Unmarshal(raw, &csr) != nil || csr.check() != nil {
			return
		}
		if checkNames(csr.CertificateRequest, subject, []string{san}) != nil {
			return
		}
		if cn := csr.Subject.CommonName; cn != "" && cn != subject && cn != san {
			t.Fatalf("common name %q passed for %q", cn, subject)
		}
		want := splitNames([]string{san})
		for _, pair := range [][2][]string{{csr.DNSNames, want.dns}, {csr.EmailAddresses, want.mail}, {asStrings(csr.IPAddresses), want.ip}, {asStrings(csr.URIs), want.uri}} {
			for _, name := range pair[0] {
				if len(pair[1]) != 1 || pair[1][0] != name {
					t.Fatalf("name %q passed for %q", name, san)
				}
			}
		}
	})
}

// FuzzAssertion: only an assertion that the device's key signed, with the
// claims that were signed, authenticates it.
func FuzzAssertion(f *testing.F) {
	w := fuzzSite(f)
	d := w.connect("gw")
	good := w.assertion(d, jws.ES256, nil)
	f.Add(good)
	f.Add(w.assertion(newWorld(f).connect("gw"), jws.ES256, nil))
	f.Add(strings.Replace(good, ".", "..", 1))
	f.Add("")
	f.Fuzz(func(t *testing.T, assertion string) {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		_, err := w.a.authenticate(r, assertionForm(d, assertion, vault))
		if err == nil && assertion != good {
			t.Fatal("taken")
		}
		if err != nil && strings.ContainsFunc(err.Error(), unicode.IsControl) {
			t.Fatalf("%q", err)
		}
	})
}

// FuzzThumbprint: what is found is what was named.
func FuzzThumbprint(f *testing.F) {
	f.Add("WcsmSDoXbKj0zkLYyiT0LPO8hqJkyl7GMo_XDdtMU9M", "", "")
	f.Add("a+/=", "_-", "ABCDEF")
	f.Fuzz(func(t *testing.T, x5ts, x5t, kid string) {
		for _, key := range headerThumbprints(jws.Header{X5TS256: x5ts, X5T: x5t, KeyID: kid, X5C: []string{kid}}) {
			kind, sum, _ := strings.Cut(key, "/")
			if n := len(anyBase64(sum)); kind == "s256" && n != 32 || kind == "s1" && n != 20 || kind != "s256" && kind != "s1" {
				t.Fatalf("key %q", key)
			}
		}
	})
}

// FuzzTokenForm: a resource comes out only if exactly one was named, and
// nothing of a stranger's text comes back with control characters.
func FuzzTokenForm(f *testing.F) {
	w := fuzzSite(f)
	d := w.connect("gw")
	f.Add("grant_type=client_credentials&client_id=" + d.clientID() + "&scope=https%3A%2F%2Fvault.azure.net%2F.default")
	f.Add("grant_type=client_credentials&client_id=a&client_id=b")
	f.Add("grant_type=client_credentials&resource=x&scope=openid")
	f.Add("&&=;%")
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRequest(http.MethodPost, w.tokenPath(), strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		rec := httptest.NewRecorder()
		w.a.Handler().ServeHTTP(rec, r)
		var v oauthAnswer
		if err := json.Unmarshal(rec.Body.Bytes(), &v); err != nil || rec.Code < 400 || rec.Code >= 500 || v.Error == "" || v.AccessToken != "" {
			t.Fatalf("%d %s", rec.Code, rec.Body)
		}
		if strings.ContainsFunc(v.Description, unicode.IsControl) {
			t.Fatalf("%q", v.Description)
		}
		form, err := url.ParseQuery(body)
		if err != nil {
			return
		}
		if resource, err := requestedResource(form); err == nil && resource == "" {
			t.Fatal("no resource and no error")
		}
	})
}

// FuzzIfNoneMatch: only the tag of the present generation gives 304.
func FuzzIfNoneMatch(f *testing.F) {
	for _, s := range []string{`"1"`, `W/"1"`, `*`, `"`, `"18446744073709551616"`, `"-1"`, `""`, `"1", "2"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		n := generationOf(header)
		if n != 0 && !strings.Contains(header, `"`) {
			t.Fatalf("%q is generation %d", header, n)
		}
	})
}

// FuzzAssignmentList: whatever an identity is called, the list is clean JSON
// that says the same.
func FuzzAssignmentList(f *testing.F) {
	w := fuzzSite(f)
	d := w.connect("gw")
	f.Add("telemetry", "default")
	f.Add("a.b_c-d", "X")
	f.Add("\"}]", "\n")
	f.Fuzz(func(t *testing.T, name, group string) {
		ctx := context.Background()
		i, err := w.a.CreateIdentity(ctx, name, group)
		if err != nil {
			return
		}
		if err := w.a.Assign(ctx, name, "gw"); err != nil {
			t.Fatal(err)
		}
		_, list, err := w.a.assignments(ctx, d.leaf(), 0, "test")
		if err := errors.Join(err, w.a.DeleteIdentity(ctx, i.ClientID, true)); err != nil {
			t.Fatal(err)
		}
		raw, err := json.Marshal(list)
		if err != nil || jws.CheckObject(raw) != nil {
			t.Fatalf("%s %v", raw, err)
		}
		if got := list.Identities[1]; got.Name != name || got.Enroll == nil || !strings.HasSuffix(got.ResourceID, "/userAssignedIdentities/"+name) {
			t.Fatalf("%+v", got)
		}
	})
}

// FuzzAdminRequest: no verb takes the process down or answers something else than JSON.
func FuzzAdminRequest(f *testing.F) {
	w := fuzzSite(f)
	for name := range verbs() {
		f.Add(name, `{}`)
		f.Add(name, `{"name":"x","machine":"m","identity":"i","life":1}`)
	}
	f.Fuzz(func(t *testing.T, name, body string) {
		v, ok := verbs()[name]
		if !ok {
			return
		}
		rec := httptest.NewRecorder()
		w.a.admin(v).ServeHTTP(rec, httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body)))
		if !json.Valid(rec.Body.Bytes()) || rec.Code == http.StatusInternalServerError {
			t.Fatalf("%s: %d %s", name, rec.Code, rec.Body)
		}
	})
}

// FuzzNotAfter: whatever life is asked for, the certificate ends within the bounds.
func FuzzNotAfter(f *testing.F) {
	for _, s := range []string{"4s", "2160h", "-1s", "2026-12-01T00:00:00Z", "9999-12-31T23:59:59Z", "1e9h", "106751d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		raw, err := json.Marshal(s)
		if err != nil {
			t.Skip()
		}
		var v timeOrDuration
		if v.UnmarshalJSON(raw) != nil {
			return
		}
		end, err := v.end(start, leafLife)
		if err == nil && (end.Before(start.Add(-time.Second)) || end.After(start.Add(leafLife+time.Second))) {
			t.Fatalf("%q ends %v", s, end)
		}
	})
}
