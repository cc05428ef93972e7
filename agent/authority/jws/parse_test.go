package jws

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	jose "github.com/go-jose/go-jose/v4"
)

func encode(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// compact puts three decoded parts together.
func compact(head, body, sig string) string {
	return encode(head) + "." + encode(body) + "." + encode(sig)
}

func TestParseIsStrict(t *testing.T) {
	const head, body, sig = `{"alg":"ES256"}`, `{"iss":"a"}`, "s"
	good := compact(head, body, sig)
	if _, err := Parse(good, 0); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	deep := func(n int) string { return `{"a":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}` }
	if _, err := Parse(compact(head, deep(deepest-1), sig), 0); err != nil {
		t.Errorf("deep, but allowed: %v", err)
	}
	for name, token := range map[string]string{
		"empty":                        "",
		"one part":                     encode(head),
		"two parts":                    encode(head) + "." + encode(body),
		"four parts":                   good + ".YQ",
		"five parts (encryption)":      good + ".YQ.YQ",
		"empty header":                 "." + encode(body) + "." + encode(sig),
		"empty payload":                encode(head) + ".." + encode(sig),
		"empty signature":              encode(head) + "." + encode(body) + ".",
		"padding":                      good + "=",
		"standard base64":              encode(head) + "." + encode(body) + ".+/+/",
		"line break":                   encode(head) + ".\n" + encode(body) + "." + encode(sig),
		"carriage return at the end":   good + "\r",
		"space":                        " " + good,
		"trailing bits":                encode(head) + "." + encode(body) + ".YR",
		"header is a list":             compact(`["ES256"]`, body, sig),
		"header is text":               compact(`"ES256"`, body, sig),
		"header is null":               compact(`null`, body, sig),
		"header is broken":             compact(`{"alg":"ES256"`, body, sig),
		"header is not UTF-8":          compact("{\"alg\":\"ES256\",\"kid\":\"\xff\"}", body, sig),
		"two headers":                  compact(head+head, body, sig),
		"alg twice":                    compact(`{"alg":"ES256","alg":"ES256"}`, body, sig),
		"alg twice, another case":      compact(`{"alg":"ES256","ALG":"none"}`, body, sig),
		"alg in capitals only":         compact(`{"ALG":"ES256"}`, body, sig),
		"alg is a number":              compact(`{"alg":256}`, body, sig),
		"alg is null":                  compact(`{"alg":null}`, body, sig),
		"kid is a number":              compact(`{"alg":"ES256","kid":1}`, body, sig),
		"kid is null":                  compact(`{"alg":"ES256","kid":null}`, body, sig),
		"x5c is text":                  compact(`{"alg":"ES256","x5c":"a"}`, body, sig),
		"crit":                         compact(`{"alg":"ES256","crit":["exp"]}`, body, sig),
		"crit is empty":                compact(`{"alg":"ES256","crit":[]}`, body, sig),
		"nested twice":                 compact(`{"alg":"ES256","jwk":{"k":1,"k":2}}`, body, sig),
		"payload is a list":            compact(head, `[1]`, sig),
		"payload is text":              compact(head, `hello`, sig),
		"payload is not UTF-8":         compact(head, "{\"iss\":\"\xff\"}", sig),
		"text after the payload":       compact(head, body+"x", sig),
		"claim twice":                  compact(head, `{"aud":"a","aud":"b"}`, sig),
		"claim twice, another case":    compact(head, `{"aud":"a","Aud":"b"}`, sig),
		"claim twice, long s":          compact(head, `{"iss":"a","i\u017fs":"b"}`, sig),
		"claim twice, Kelvin sign":     compact(head, `{"kid":"a","\u212aid":"b"}`, sig),
		"claim twice, written escaped": compact(head, `{"iss":"a","\u0069ss":"b"}`, sig),
		"claim twice, nested in list":  compact(head, `{"a":[{"b":1,"b":2}]}`, sig),
		"too deep":                     compact(head, deep(deepest), sig),
		"much too deep":                compact(head, deep(5000), sig),
		"too long":                     compact(head, `{"iss":"`+strings.Repeat("a", DefaultLimit)+`"}`, sig),
		"header too long":              compact(`{"alg":"ES256","kid":"`+strings.Repeat("a", headerLimit)+`"}`, body, sig),
	} {
		if _, err := Parse(token, 0); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
}

func TestParseKeepsItsLimit(t *testing.T) {
	token := compact(`{"alg":"ES256"}`, `{}`, "s")
	if _, err := Parse(token, len(token)); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if _, err := Parse(token, len(token)-1); !errors.Is(err, ErrMalformed) {
		t.Errorf("one over: got %v", err)
	}
}

func TestHeaderFieldsAreRead(t *testing.T) {
	token, err := Parse(compact(`{"alg":"PS256","typ":"at+jwt","kid":"k","x5t":"t","x5t#S256":"a+/=","x5c":["c1","c2"],"x5cInsecure":["i"],"other":{"a":[1]}}`, `{}`, "s"), 0)
	if err != nil {
		t.Fatal(err)
	}
	h := token.Header
	if h.Algorithm != PS256 || h.Type != "at+jwt" || h.KeyID != "k" || h.X5T != "t" || h.X5TS256 != "a+/=" ||
		strings.Join(h.X5C, ",") != "c1,c2" || strings.Join(h.X5CInsecure, ",") != "i" {
		t.Errorf("got %+v", h)
	}
}

func TestErrorsDoNotQuoteTheToken(t *testing.T) {
	const canary = "canary-8f2a"
	for _, token := range []string{
		compact(`{"alg":"`+canary+`"}`, `{}`, "s"), compact(`{"alg":"ES256","kid":{"a":"`+canary+`"}}`, `{}`, "s"),
		compact(`{"alg":"ES256"}`, `"`+canary+`"`, "s"), "!" + canary,
	} {
		_, err := Parse(token, 0)
		if err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("got %v", err)
		}
	}
	token, err := Parse(compact(`{"alg":"ES256"}`, `{"exp":"`+canary+`","iss":"`+canary+`"}`, "s"), 0)
	if err != nil {
		t.Fatal(err)
	}
	var number struct {
		Issuer int `json:"iss"`
	}
	var date struct {
		Expires Time `json:"exp"`
	}
	for _, into := range []any{&number, &date} {
		if err := token.Decode(into); !errors.Is(err, ErrMalformed) || strings.Contains(err.Error(), canary) {
			t.Errorf("got %v", err)
		}
	}
}

func TestVerifyHasTheLastWordOnTheAlgorithm(t *testing.T) {
	for _, s := range samples(t) {
		signed, err := Sign(s.key, s.alg, nil, map[string]any{"iss": "a"})
		if err != nil {
			t.Fatal(err)
		}
		token, err := Parse(signed, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := token.Verify(s.key.Public(), RS256, PS256, ES256); err != nil {
			t.Errorf("%s among three: %v", s.alg, err)
		}
		for _, other := range []string{RS256, PS256, ES256, "none", ""} {
			if err := token.Verify(s.key.Public(), other); other != s.alg && !errors.Is(err, ErrAlgorithm) {
				t.Errorf("%s verified as %q: %v", s.alg, other, err)
			}
		}
		if err := token.Verify(s.key.Public()); !errors.Is(err, ErrAlgorithm) {
			t.Errorf("%s with nothing allowed: %v", s.alg, err)
		}
	}
}

func TestSignatureOfAnotherKeyTextOrFormIsRefused(t *testing.T) {
	for _, s := range samples(t) {
		signed, err := Sign(s.key, s.alg, nil, map[string]any{"iss": "a"})
		if err != nil {
			t.Fatal(err)
		}
		parts := strings.Split(signed, ".")
		sig, err := base64.RawURLEncoding.DecodeString(parts[2])
		if err != nil {
			t.Fatal(err)
		}
		flipped := append([]byte(nil), sig...)
		flipped[len(flipped)-1] ^= 1
		head := strings.Replace(string(mustDecode(t, parts[0])), "}", `,"kid":"x"}`, 1)
		for name, changed := range map[string]string{
			"another claim":  parts[0] + "." + encode(`{"iss":"b"}`) + "." + parts[2],
			"another header": encode(head) + "." + parts[1] + "." + parts[2],
			"a flipped bit":  parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(flipped),
			"a byte more":    parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(append(sig, 0)),
			"a byte less":    parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(sig[:len(sig)-1]),
			"zeros":          parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(make([]byte, len(sig))),
		} {
			token, err := Parse(changed, 0)
			if err != nil {
				t.Fatalf("%s: %s: %v", s.alg, name, err)
			}
			if err := token.Verify(s.key.Public(), s.alg); !errors.Is(err, ErrSignature) {
				t.Errorf("%s: %s: got %v, want ErrSignature", s.alg, name, err)
			}
		}
		token, err := Parse(signed, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range samples(t) {
			if err := token.Verify(other.key.Public(), s.alg); err == nil {
				t.Errorf("%s: another key (%s) was taken", s.alg, other.alg)
			}
		}
	}
}

func TestASN1SignatureIsNoJWS(t *testing.T) {
	key := ecKey(t, elliptic.P256())
	digest := make([]byte, 32)
	der, err := ecdsa.SignASN1(nil, key, digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := verifyDigest(&key.PublicKey, ES256, digest, der); !errors.Is(err, ErrSignature) {
		t.Errorf("got %v", err)
	}
}

func mustDecode(t *testing.T, s string) []byte {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// What Parse takes, go-jose takes too, and reads the same algorithm and payload.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		vectorRS256, vectorES256, compact(`{"alg":"ES256","x5c":["a"],"crit":["b"]}`, `{"a":[{}]}`, "s"),
		"..", "a.b.c", compact(`{"alg":"PS256","alg":"ES256"}`, `{"a":1,"A":2}`, "s"), "",
	} {
		f.Add(seed)
	}
	key := ecKey(f, elliptic.P256())
	f.Fuzz(func(t *testing.T, s string) {
		token, err := Parse(s, 0)
		if err != nil {
			return
		}
		if err := token.Verify(&key.PublicKey, RS256, PS256, ES256); err == nil {
			t.Fatal("a signature by a key that signed nothing")
		}
		theirs, err := jose.ParseSignedCompact(s, []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256})
		if err != nil {
			if strings.Contains(err.Error(), "json: ") || len(token.Header.X5C) > 0 {
				return // go-jose reads "jwk", "nonce" and "x5c", which are nothing to us here
			}
			var fields map[string]json.RawMessage
			if json.Unmarshal(mustDecode(t, strings.Split(s, ".")[0]), &fields) == nil && (fields["jwk"] != nil || fields["nonce"] != nil || fields["b64"] != nil) {
				return
			}
			t.Fatalf("go-jose refuses what we take: %v", err)
		}
		if got := theirs.Signatures[0].Protected.Algorithm; got != token.Header.Algorithm {
			t.Fatalf("algorithm %q, go-jose reads %q", token.Header.Algorithm, got)
		}
		if string(theirs.UnsafePayloadWithoutVerification()) != string(token.payload) {
			t.Fatal("payloads differ")
		}
	})
}
