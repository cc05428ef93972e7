package jws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"strings"
	"testing"

	jose "github.com/go-jose/go-jose/v4"
)

func rsaKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func ecKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

type sample struct {
	alg string
	key crypto.Signer
}

func samples(t testing.TB) []sample {
	t.Helper()
	r := rsaKey(t, 2048)
	return []sample{{RS256, r}, {PS256, r}, {ES256, ecKey(t, elliptic.P256())}}
}

// go-jose is the oracle: what we sign it must verify, and the other way round.
func TestGoJoseVerifiesWhatWeSign(t *testing.T) {
	for _, s := range samples(t) {
		for range 20 { // r and s with leading zeros come up one time in 128
			compact, err := Sign(s.key, s.alg, map[string]any{"typ": "JWT", "kid": "k1"}, map[string]any{"iss": "a", "n": 1})
			if err != nil {
				t.Fatal(err)
			}
			parsed, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(s.alg)})
			if err != nil {
				t.Fatalf("%s: %v", s.alg, err)
			}
			if got := parsed.Signatures[0].Protected; got.KeyID != "k1" || got.Algorithm != s.alg {
				t.Fatalf("%s: header %+v", s.alg, got)
			}
			if _, err := parsed.Verify(s.key.Public()); err != nil {
				t.Fatalf("%s: %v", s.alg, err)
			}
		}
	}
}

func TestWeVerifyWhatGoJoseSigns(t *testing.T) {
	for _, s := range samples(t) {
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(s.alg), Key: s.key}, nil)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := signer.Sign([]byte(`{"iss":"a"}`))
		if err != nil {
			t.Fatal(err)
		}
		compact, err := signed.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		token, err := Parse(compact, 0)
		if err != nil {
			t.Fatalf("%s: %v", s.alg, err)
		}
		if err := token.Verify(s.key.Public(), s.alg); err != nil {
			t.Errorf("%s: %v", s.alg, err)
		}
	}
}

func TestSignRefusesKeysThatDoNotFit(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r, e := rsaKey(t, 2048), ecKey(t, elliptic.P256())
	for name, s := range map[string]sample{
		"RSA with ES256":   {ES256, r},
		"P-256 with RS256": {RS256, e},
		"P-256 with PS256": {PS256, e},
		"P-384":            {ES256, ecKey(t, elliptic.P384())},
		"Ed25519":          {ES256, ed},
		"RSA of 5120 bits": {PS256, publicOnly{&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 5119), E: 65537}}},
		"RSA of 1024 bits": {PS256, publicOnly{&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 1023), E: 65537}}},
		"none":             {"none", r},
		"no algorithm":     {"", r},
		"HMAC":             {"HS256", e},
	} {
		if got, err := Sign(s.key, s.alg, nil, map[string]any{}); !errors.Is(err, ErrKey) {
			t.Errorf("%s: got %q, %v; want ErrKey", name, got, err)
		}
	}
}

func TestAlgorithmFollowsTheKey(t *testing.T) {
	for want, key := range map[string]crypto.Signer{PS256: rsaKey(t, 2048), ES256: ecKey(t, elliptic.P256())} {
		if got, err := Algorithm(key.Public()); err != nil || got != want {
			t.Errorf("%T: got %q, %v; want %q", key, got, err, want)
		}
	}
	if got, err := Algorithm(ecKey(t, elliptic.P521()).Public()); !errors.Is(err, ErrKey) {
		t.Errorf("P-521: got %q, %v; want ErrKey", got, err)
	}
}

func TestHeaderCannotNameAnotherAlgorithm(t *testing.T) {
	key := ecKey(t, elliptic.P256())
	for _, header := range []any{
		map[string]any{"alg": "none"},
		map[string]any{"alg": 5},
		[]string{"a"},
		"text",
		map[string]any{"f": func() {}},
	} {
		if got, err := Sign(key, ES256, header, map[string]any{}); err == nil {
			t.Errorf("%v: got %q", header, got)
		}
	}
	if _, err := Sign(key, ES256, map[string]any{"alg": ES256}, map[string]any{}); err != nil {
		t.Errorf("the same algorithm: %v", err)
	}
	if _, err := Sign(key, ES256, nil, []int{1}); err == nil {
		t.Error("a list was taken for claims")
	}
	if _, err := Sign(key, ES256, nil, map[string]any{"f": func() {}}); err == nil {
		t.Error("claims that do not encode were taken")
	}
}

// publicOnly has no private half: Sign must refuse before it asks.
type publicOnly struct{ pub crypto.PublicKey }

func (p publicOnly) Public() crypto.PublicKey { return p.pub }
func (publicOnly) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	panic("asked to sign")
}

// longSalt signs PSS with the longest salt, as a TPM may.
type longSalt struct{ *rsa.PrivateKey }

func (k longSalt) Sign(r io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	return rsa.SignPSS(r, k.PrivateKey, crypto.SHA256, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto})
}

func TestSignatureWithAnotherSaltLengthNeverLeaves(t *testing.T) {
	if got, err := Sign(longSalt{rsaKey(t, 2048)}, PS256, nil, map[string]any{}); !errors.Is(err, ErrSignature) {
		t.Errorf("got %q, %v; want ErrSignature", got, err)
	}
}

// answers returns what it was told to, whatever is signed.
type answers struct {
	*ecdsa.PrivateKey
	sig []byte
	err error
}

func (k answers) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return k.sig, k.err }

func TestBrokenSignerIsReported(t *testing.T) {
	key := ecKey(t, elliptic.P256())
	pair := func(r, s *big.Int) []byte {
		der, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	one, big257 := big.NewInt(1), new(big.Int).Lsh(big.NewInt(1), 256)
	for name, a := range map[string]answers{
		"error":      {key, nil, errors.New("TPM is locked out")},
		"not ASN.1":  {key, []byte("x"), nil},
		"trailing":   {key, append(pair(one, one), 0), nil},
		"zero":       {key, pair(big.NewInt(0), one), nil},
		"negative":   {key, pair(one, big.NewInt(-1)), nil},
		"too large":  {key, pair(big257, one), nil},
		"wrong pair": {key, pair(one, one), nil},
	} {
		if got, err := Sign(a, ES256, nil, map[string]any{}); err == nil {
			t.Errorf("%s: got %q", name, got)
		} else if name == "error" && !strings.Contains(err.Error(), "TPM is locked out") {
			t.Errorf("cause is lost: %v", err)
		}
	}
}

func TestSmallNumbersOfASignatureArePadded(t *testing.T) {
	der, err := asn1.Marshal(struct{ R, S *big.Int }{big.NewInt(1), big.NewInt(0x0203)})
	if err != nil {
		t.Fatal(err)
	}
	got, err := joinRS(der)
	if err != nil || len(got) != 64 || got[31] != 1 || got[62] != 2 || got[63] != 3 || got[0] != 0 {
		t.Errorf("got %x, %v", got, err)
	}
}

func FuzzSignThenParse(f *testing.F) {
	key := ecKey(f, elliptic.P256())
	f.Add("client", "https://h/token", "id")
	f.Add("", "\x00", "\u2028\xff")
	f.Fuzz(func(t *testing.T, iss, aud, kid string) {
		compact, err := Sign(key, ES256, map[string]any{"kid": kid}, map[string]any{"iss": iss, "aud": Audience{aud}})
		if err != nil {
			t.Fatal(err)
		}
		token, err := Parse(compact, 1<<20)
		if err != nil {
			if len(kid) > 1000 { // the header has its own limit
				return
			}
			t.Fatal(err)
		}
		if err := token.Verify(&key.PublicKey, ES256); err != nil {
			t.Fatal(err)
		}
		var got struct {
			Issuer   string   `json:"iss"`
			Audience Audience `json:"aud"`
		}
		if err := token.Decode(&got); err != nil {
			t.Fatal(err)
		}
		want := clean(t, iss)
		if got.Issuer != want || !got.Audience.Contains(clean(t, aud)) {
			t.Fatalf("got %q, want %q", got.Issuer, want)
		}
	})
}

// clean is what JSON makes of a string that is not UTF-8.
func clean(t *testing.T, s string) string {
	t.Helper()
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var out string
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}
