package site

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"postern/agent/authority/jws"
)

const (
	stepUnauthorized = "The request lacked necessary authorization to be completed. Please see the certificate authority logs for more info."
	stepBad          = "The request could not be completed: "
	stepForbidden    = "The request was forbidden by the certificate authority: "
)

// The messages are those of step-ca 0.30.2, recorded with curl.
func TestSignAnswersAsStepCA(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key := newKey(t)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	w.must(err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	w.must(err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	w.must(err)
	used := w.claim(ClaimRequest{Machine: "used"})
	w.sign(used)
	n := 0
	fresh := func() (string, oneTime) {
		n++
		token := w.claim(ClaimRequest{Machine: fmt.Sprintf("fresh-%d", n)})
		return token, claimsOf(t, token)
	}
	// forge makes a one-time token by the right key unless it says otherwise.
	forge := func(change func(header, claims map[string]any), by crypto.Signer) string {
		_, c := fresh()
		now := w.clock.Now().Unix()
		header := map[string]any{"typ": "JWT", "kid": w.a.kid}
		claims := map[string]any{
			"jti": c.ID, "iss": "onboard", "aud": testURL + "/1.0/sign", "sub": c.Subject, "sans": c.SANs,
			"iat": now, "nbf": now, "exp": now + 300,
		}
		change(header, claims)
		token, err := jws.Sign(by, jws.ES256, header, claims)
		w.must(err)
		return token
	}
	good := csrFor(t, key, "")
	broken := func() string {
		block, _ := pem.Decode([]byte(good))
		block.Bytes[len(block.Bytes)-1] ^= 1
		return string(pem.EncodeToMemory(block))
	}()
	type body = map[string]any
	with := func(change func(header, claims map[string]any)) func() any {
		return func() any { return body{"csr": good, "ott": forge(change, w.a.claims.key)} }
	}
	named := func(commonName string, sans ...string) func() any {
		return func() any {
			token, _ := fresh()
			return body{"csr": csrFor(t, key, commonName, sans...), "ott": token}
		}
	}
	keyed := func(key crypto.Signer, extra body) func() any {
		return func() any {
			token, c := fresh()
			b := body{"csr": csrFor(t, key, c.Subject, c.SANs...), "ott": token}
			for k, v := range extra {
				b[k] = v
			}
			return b
		}
	}
	for _, tc := range []struct {
		name    string
		body    func() any // a string is sent as it is
		status  int
		message string // ID, SANS stand for the token's
	}{
		{"empty body", func() any { return "" }, 400, stepBad + "error decoding json."},
		{"no json", func() any { return "xx" }, 400, stepBad + "error decoding json."},
		{"empty object", func() any { return body{} }, 400, stepBad + "missing csr."},
		{"null csr", func() any { return body{"csr": nil, "ott": "x"} }, 400, stepBad + "missing csr."},
		{"csr is a number", func() any { return body{"csr": 5, "ott": "x"} }, 400, stepBad + "error decoding json."},
		{"csr is no PEM", func() any { return body{"csr": "xx", "ott": "x"} }, 400, stepBad + "error decoding json."},
		{"csr not signed by its key", func() any { return body{"csr": broken, "ott": "x"} }, 400, stepBad + "invalid csr."},
		{"no token", func() any { return body{"csr": good} }, 400, stepBad + "missing ott."},
		{"notAfter nonsense", func() any { return body{"csr": good, "ott": "x", "notAfter": "zzz"} }, 400, stepBad + "error decoding json."},
		{"garbage token", func() any { return body{"csr": good, "ott": "garbage"} }, 401, stepUnauthorized},
		{"used token", func() any { return signBody(t, key, used) }, 401, stepUnauthorized},
		{"wrong audience", with(func(_, c map[string]any) { c["aud"] = "https://x/1.0/sign" }), 401, stepUnauthorized},
		{"audience of renew", with(func(_, c map[string]any) { c["aud"] = testURL + "/1.0/renew" }), 401, stepUnauthorized},
		{"audience of a factory", with(func(_, c map[string]any) { c["aud"] = testURL + "/1.0/sign#x5c/factory" }), 401, stepUnauthorized},
		{"other issuer", with(func(_, c map[string]any) { c["iss"] = "zz" }), 401, stepUnauthorized},
		{"other kid", with(func(h, _ map[string]any) { h["kid"] = "zz" }), 401, stepUnauthorized},
		{"expired", with(func(_, c map[string]any) { c["exp"] = w.clock.Now().Unix() - 61 }), 401, stepUnauthorized},
		{"no expiry", with(func(_, c map[string]any) { delete(c, "exp") }), 401, stepUnauthorized},
		{"from the future", with(func(_, c map[string]any) { c["nbf"] = w.clock.Now().Unix() + 62 }), 401, stepUnauthorized},
		{"issued in the future", with(func(_, c map[string]any) { c["iat"] = w.clock.Now().Unix() + 62 }), 401, stepUnauthorized},
		{"no subject", with(func(_, c map[string]any) { delete(c, "sub") }), 401, stepUnauthorized},
		{"unknown jti", with(func(_, c map[string]any) { c["jti"] = "0123" }), 401, stepUnauthorized},
		{"names of another claim", with(func(_, c map[string]any) { c["sub"] = "other" }), 401, stepUnauthorized},
		{"sans of another claim", with(func(_, c map[string]any) { c["sans"] = sansFor("a", "b") }), 401, stepUnauthorized},
		{"signed by another key", func() any { return body{"csr": good, "ott": forge(func(_, _ map[string]any) {}, key)} }, 401, stepUnauthorized},
		{"other common name", named("d2"), 403, stepForbidden + "certificate request does not contain the valid common name - got d2, want [ID ID-SANS]."},
		{"other DNS name", named("", "other"), 403, stepForbidden + "certificate request does not contain the valid DNS names - got [other], want []."},
		{"other URI", named("", "urn:device:zz"), 403, stepForbidden + "certificate request does not contain the valid URIs - got [urn:device:zz], want [SANS]."},
		{"IP address", named("", "1.2.3.4"), 403, stepForbidden + "certificate request does not contain the valid IP addresses - got [1.2.3.4], want []."},
		{"mail address", named("", "a@b"), 403, stepForbidden + "certificate request does not contain the valid email addresses - got [a@b], want []."},
		{"short RSA key", keyed(small, nil), 403, stepForbidden + "certificate request RSA key must be at least 2048 bits (256 bytes)."},
		{"curve P-384", keyed(p384, nil), 403, stepForbidden + "certificate request EC key must be on the curve P-256."},
		{"too long", keyed(key, body{"notAfter": "3000h"}), 403, stepForbidden + "requested duration of 3000h1m0s is more than the authorized maximum certificate duration of 2160h1m0s."},
		{"in the past", keyed(key, body{"notAfter": "2020-01-01T00:00:00Z"}), 400, stepBad + "notAfter cannot be in the past; na=2020-01-01 00:00:00 +0000 UTC."},
		{"too large a csr", func() any { return body{"csr": strings.Repeat("a", maxCSR+1), "ott": "x"} }, 413, stepBad + "the request is too large."},
		{"ed25519", keyed(ed, nil), 201, ""},
		{"no names in the csr", named(""), 201, ""},
		{"expired within the leeway", with(func(_, c map[string]any) { c["exp"] = w.clock.Now().Unix() - 59 }), 201, ""},
		{"other port in the audience", with(func(_, c map[string]any) { c["aud"] = "https://Localhost:1/sign" }), 201, ""},
		{"several audiences", with(func(_, c map[string]any) { c["aud"] = []string{"https://x/1.0/sign", "https://192.0.2.7/1.0/sign"} }), 201, ""},
		{"four seconds", keyed(key, body{"notAfter": "4s"}), 201, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := tc.body()
			var got answer
			if text, ok := b.(string); ok {
				got = w.do(nil, http.MethodPost, "/1.0/sign", nil, text)
			} else {
				got = w.post(nil, "/sign", b)
			}
			want := tc.message
			if m, ok := b.(body); ok && strings.Contains(want, "SANS") {
				c := claimsOf(t, m["ott"].(string))
				want = strings.ReplaceAll(want, "ID-SANS", strings.Join(c.SANs, " "))
				want = strings.ReplaceAll(strings.ReplaceAll(want, "[ID", "["+c.Subject), "SANS", strings.Join(c.SANs, " "))
			}
			if got.status != tc.status || got.message() != want {
				t.Errorf("got %d %s\nwant %d %s", got.status, got.body, tc.status, want)
			}
			if ct := got.header.Get("Content-Type"); ct != "application/json" {
				t.Errorf("content type %q", ct)
			}
		})
	}
}

func TestSignAnswersWithAChainLikeStepCA(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.claim(ClaimRequest{Machine: "gw"})
	c := claimsOf(t, token)
	key := newKey(t)
	a := w.post(nil, "/1.0/sign", signBody(t, key, token))
	chain := chainOf(t, a)
	r := decodeAs[chainResponse](t, a)
	if len(chain) != 2 || r.Certificate != r.Chain[0] || r.CA != r.Chain[1] || r.TLS.MinVersion != 1.2 || len(r.TLS.CipherSuites) != 2 {
		t.Errorf("answer %s", a.body)
	}
	leaf := chain[0]
	if leaf.Subject.String() != "CN="+c.Subject || strings.Join(asStrings(leaf.URIs), " ") != strings.Join(c.SANs, " ") || len(leaf.DNSNames) != 0 {
		t.Errorf("names %v %v", leaf.Subject, leaf.URIs)
	}
	if !leaf.NotBefore.Equal(start.Add(-time.Minute)) || !leaf.NotAfter.Equal(start.Add(90*24*time.Hour)) {
		t.Errorf("valid from %v to %v", leaf.NotBefore, leaf.NotAfter)
	}
	if leaf.KeyUsage != x509.KeyUsageDigitalSignature || len(leaf.ExtKeyUsage) != 2 || leaf.IsCA || leaf.SerialNumber.Sign() <= 0 {
		t.Errorf("usage %v %v", leaf.KeyUsage, leaf.ExtKeyUsage)
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(w.a.RootPEM()))
	between.AddCert(chain[1])
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: start, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
}

func TestRenewRekeyAndRevokeAnswerAsStepCA(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.connect("gw")
	other := w.connect("other")
	csr := map[string]string{"csr": csrFor(t, newKey(t), "any")}
	serial := func(s, more string) string { return `{"serial":"` + s + `","reasonCode":4,"passive":true` + more + `}` }
	gone := w.rekey(d)
	if a := w.do(gone, "POST", "/1.0/revoke", nil, serial(gone.serial(), "")); a.status != 200 || string(a.body) != `{"status":"ok"}`+"\n" {
		t.Fatalf("revoke: %d %s", a.status, a.body)
	}
	hexa := w.rekey(d)
	for _, tc := range []struct {
		name    string
		d       *device
		path    string
		body    any
		status  int
		message string
	}{
		{"renew without certificate", nil, "renew", "", 400, stepBad + "missing client certificate."},
		{"renew", d, "renew", "", 201, ""},
		{"renew with a body", d, "renew", "hello", 201, ""},
		{"rekey without certificate", nil, "rekey", csr, 400, stepBad + "missing client certificate."},
		{"rekey empty", d, "rekey", "{}", 400, stepBad + "missing csr."},
		{"rekey no json", d, "rekey", "zz", 400, stepBad + "error decoding json."},
		{"rekey", d, "rekey", csr, 201, ""},
		{"revoke empty", d, "revoke", "{}", 400, stepBad + "missing serial."},
		{"revoke no json", d, "revoke", "", 400, stepBad + "error decoding json."},
		{"revoke bad serial", d, "revoke", serial("zz", ""), 400, stepBad + "'zz' is not a valid serial number - use a base 10 representation or a base 16 representation with '0x' prefix."},
		{"revoke reason", d, "revoke", `{"serial":"1","reasonCode":11,"passive":true}`, 400, stepBad + "reasonCode out of bounds."},
		{"revoke active", d, "revoke", `{"serial":"1","reasonCode":4}`, 501, "The requested method is not implemented by the certificate authority. Please see the certificate authority logs for more info."},
		{"revoke without certificate", nil, "revoke", serial("1", ""), 400, stepBad + "missing ott or client certificate."},
		{"revoke another's", d, "revoke", serial(other.serial(), ""), 403, stepForbidden + fmt.Sprintf("request serial number %q and certificate serial number %q do not match.", other.serial(), d.serial())},
		{"revoke with token", d, "revoke", serial(d.serial(), `,"ott":"xx"`), 401, stepUnauthorized},
		{"revoke hexadecimal", hexa, "revoke", serial("0x"+hexa.leaf().SerialNumber.Text(16), ""), 200, ""},
		{"revoke again", gone, "revoke", serial(gone.serial(), ""), 400, stepBad + "certificate with serial number '" + gone.serial() + "' is already revoked."},
		{"renew revoked", gone, "renew", "", 401, stepUnauthorized},
		{"rekey revoked", gone, "rekey", csr, 401, stepUnauthorized},
	} {
		for _, version := range []string{"/", "/1.0/"} {
			if tc.status == 200 && version == "/1.0/" {
				continue // done
			}
			t.Run(tc.name+" "+version, func(t *testing.T) {
				var got answer
				if text, ok := tc.body.(string); ok {
					got = w.do(tc.d, "POST", version+tc.path, nil, text)
				} else {
					got = w.post(tc.d, version+tc.path, tc.body)
				}
				if got.status != tc.status || got.message() != tc.message {
					t.Errorf("got %d %s\nwant %d %s", got.status, got.body, tc.status, tc.message)
				}
			})
		}
	}
}

func TestRenewalKeepsNamesAndLifetimeAndTheOldOneStaysValid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.claim(ClaimRequest{Machine: "gw"})
	key := newKey(t)
	body := signBody(t, key, token)
	body["notAfter"] = "240h"
	d := &device{key, chainOf(t, w.post(nil, "/sign", body))}
	w.clock.add(100 * time.Hour)
	same := chainOf(t, w.do(d, "POST", "/1.0/renew", nil, ""))[0]
	if !bytes.Equal(same.RawSubjectPublicKeyInfo, d.leaf().RawSubjectPublicKeyInfo) || same.NotAfter.Sub(same.NotBefore) != 240*time.Hour+time.Minute {
		t.Errorf("renewed: key or life changed: %v", same.NotAfter.Sub(same.NotBefore))
	}
	n := w.rekey(d)
	if n.clientID() != d.clientID() || fmt.Sprint(n.leaf().URIs) != fmt.Sprint(d.leaf().URIs) || n.serial() == d.serial() {
		t.Errorf("rekeyed: names %v %v", n.leaf().Subject, n.leaf().URIs)
	}
	if !n.leaf().NotAfter.After(d.leaf().NotAfter) {
		t.Error("rekeyed certificate does not end later")
	}
	if a := w.do(d, "POST", "/1.0/renew", nil, ""); a.status != 201 {
		t.Errorf("old one is refused: %d %s", a.status, a.body)
	}
}

func TestPublicDocuments(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := sha256.Sum256(w.a.root.certificate.Raw)
	sum := hex.EncodeToString(root[:])
	for _, tc := range []struct {
		path   string
		status int
		body   string // must be contained
	}{
		{"/health", 200, `{"status":"ok"}`},
		{"/1.0/health", 200, `{"status":"ok"}`},
		{"/version", 200, `{"version":"1.0-test"}`},
		{"/root/" + sum, 200, `{"ca":"-----BEGIN CERTIFICATE-----`},
		{"/root/" + strings.ToUpper(sum), 200, `{"ca":"`},
		{"/root/abcd", 404, `{"status":404,"message":"root certificate with fingerprint \"abcd\" was not found"}`},
		{"/roots.pem", 200, w.a.RootPEM()},
		{"/provisioners", 200, `{"provisioners":[{"type":"JWK","name":"onboard","key":{"kty":"EC"`},
		{"/provisioners", 200, `"maxTLSCertDuration":"2160h0m0s"`},
		{"/nowhere", 404, "404 page not found"},
		{"/1.0/sign", 405, ""},
	} {
		got := w.do(nil, http.MethodGet, tc.path, nil, "")
		if got.status != tc.status || !bytes.Contains(got.body, []byte(tc.body)) {
			t.Errorf("%s: got %d %s", tc.path, got.status, got.body)
		}
	}
	if w.a.RootSHA256() != sum {
		t.Errorf("root fingerprint %s", w.a.RootSHA256())
	}
	i, err := w.a.Info(context.Background())
	w.must(err)
	if i.URL != testURL || i.TenantID != w.a.tenant || i.RootSHA256 != sum || i.AuditRecords == 0 {
		t.Errorf("info %+v", i)
	}
}
