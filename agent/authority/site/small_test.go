package site

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"pgregory.net/rapid"
)

func TestGateLetsThroughItsRateAndItsBurst(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Float64Range(0.1, 50).Draw(t, "rate")
		burst := float64(rapid.IntRange(1, 100).Draw(t, "burst"))
		g := newGate(rate, burst)
		now, passed, elapsed := start, 0.0, 0.0
		for range rapid.IntRange(1, 200).Draw(t, "requests") {
			step := time.Duration(rapid.Int64Range(-int64(time.Second), int64(3*time.Second)).Draw(t, "step"))
			now = now.Add(step)
			elapsed += math.Max(0, step.Seconds())
			wait, ok := g.pass("k", now)
			switch {
			case ok && wait != 0, !ok && wait < time.Second:
				t.Fatalf("ok %v, wait %v", ok, wait)
			case ok:
				passed++
			}
			if passed > burst+elapsed*rate+1e-6 {
				t.Fatalf("%v passed in %v s at %v a second, burst %v", passed, elapsed, rate, burst)
			}
		}
		// After the wait that it names, the next one passes.
		for {
			wait, ok := g.pass("k", now)
			if !ok {
				if _, ok := g.pass("k", now.Add(wait+time.Second)); !ok {
					t.Fatal("still shut after its own wait")
				}
				return
			}
		}
	})
}

func TestGateForgetsKeysThatAreFullAgain(t *testing.T) {
	t.Parallel()
	g := newGate(1, 1)
	for i := range 5000 {
		g.pass(fmt.Sprint(i), start.Add(time.Duration(i)*time.Millisecond))
	}
	if n := len(g.buckets); n > 2100 {
		t.Errorf("%d keys are remembered", n)
	}
	if _, ok := g.pass("4999", start.Add(4999*time.Millisecond)); ok {
		t.Error("a key that is empty was forgotten")
	}
}

func TestNamesAreWhatResourceIDsCanHold(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"a", "A1", "gw-0042", "a.b_c-d", strings.Repeat("x", 64), "7"} {
		if err := checkName("machine", good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "-", "a-", ".a", "a/b", "a b", "ä", "a\n", "a\x00", strings.Repeat("x", 65), "%41", "a;b", "../x"} {
		if err := checkName("machine", bad); !errors.Is(err, ErrInvalid) || strings.ContainsAny(err.Error(), "\n\x00") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestIDsLookLikeTheRealOnes(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 1000 {
		id, serial := newGUID(), newSerial()
		if !validGUID(id) || id[14] != '4' || !strings.ContainsRune("89ab", rune(id[19])) || seen[id] || seen[serial.String()] {
			t.Fatalf("id %s", id)
		}
		if serial.Sign() <= 0 || serial.BitLen() > 127 {
			t.Fatalf("serial %s", serial)
		}
		seen[id], seen[serial.String()] = true, true
	}
}

func TestNamesOfATokenAreSortedByKindAsStepDoes(t *testing.T) {
	t.Parallel()
	got := splitNames([]string{"host.test", "192.0.2.1", "2001:db8::1", "a@b.test", "urn:postern:identity:x", "https://x.test/p", "single"})
	want := splitSANs{dns: []string{"host.test", "single"}, mail: []string{"a@b.test"}, ip: []string{"192.0.2.1", "2001:db8::1"}, uri: []string{"urn:postern:identity:x", "https://x.test/p"}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if !sameSet([]string{"a", "b", "a"}, []string{"b", "a"}) || sameSet([]string{"a"}, []string{"a", "b"}) || sameSet([]string{"a", "b"}, []string{"a"}) {
		t.Error("sets")
	}
}

func TestAudienceOfATokenIsOneOfOurNames(t *testing.T) {
	t.Parallel()
	a, err := newAuthority(Options{URL: testURL, Names: []string{"Gate.test", "::1", "192.0.2.7"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, good := range []string{
		testURL + "/1.0/sign", "https://authority.test/sign", "https://AUTHORITY.test:1/sign", "https://gate.test/1.0/sign", "https://[::1]:8443/1.0/sign", "https://192.0.2.7/sign",
	} {
		if !a.isSignURL(good) {
			t.Errorf("%s is refused", good)
		}
	}
	for _, bad := range []string{
		"", "sign", testURL, testURL + "/", testURL + "/1.0/renew", testURL + "/2.0/sign", testURL + "/1.0/sign/", "http://authority.test/sign",
		"https://elsewhere.test/sign", "https://authority.test.evil.test/sign", "https://u@authority.test/sign", "https://authority.test/sign?x", "https://authority.test/sign#x5c/f", "https:///sign", "%",
	} {
		if a.isSignURL(bad) {
			t.Errorf("%s is taken", bad)
		}
	}
}

func TestThumbprintsAreReadInAllFourEncodings(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		raw := rapid.SliceOfN(rapid.Byte(), 20, 32).Draw(t, "digest")
		for _, enc := range []*base64.Encoding{base64.RawURLEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.StdEncoding} {
			if got := anyBase64(enc.EncodeToString(raw)); string(got) != string(raw) {
				t.Fatalf("%x became %x", raw, got)
			}
		}
	})
	for _, bad := range []string{"", "=", "a", "a b", "a\nb", "é", strings.Repeat("A", 65)} {
		if got := anyBase64(bad); got != nil {
			t.Errorf("%q became %x", bad, got)
		}
	}
}

func TestKeyIDsAreRFC7638Thumbprints(t *testing.T) {
	t.Parallel()
	for range 20 { // now and then a coordinate begins with a zero byte
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		got, err := keyThumbprint(key.Public())
		want, werr := (&jose.JSONWebKey{Key: key.Public()}).Thumbprint(5) // crypto.SHA256
		if err != nil || werr != nil || got != base64.RawURLEncoding.EncodeToString(want) {
			t.Fatalf("got %s %v %v", got, err, werr)
		}
	}
	key := testRSA()[0]
	want, err := (&jose.JSONWebKey{Key: &key.PublicKey}).Thumbprint(5)
	if err != nil || rsaThumbprint(key) != base64.RawURLEncoding.EncodeToString(want) {
		t.Errorf("got %s %v", rsaThumbprint(key), err)
	}
	if _, err := keyThumbprint(&key.PublicKey); err == nil {
		t.Error("an RSA key is no P-256 key")
	}
}

func TestPublishedKeysAreCleanJWKs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.do(nil, "GET", "/"+w.a.tenant+"/discovery/v2.0/keys", nil, "")
	var set struct {
		Keys []map[string]string `json:"keys"`
	}
	w.must(json.Unmarshal(a.body, &set))
	if len(set.Keys) != 1 || a.header.Get("Cache-Control") != "max-age=3600" {
		t.Fatalf("got %s %q", a.body, a.header.Get("Cache-Control"))
	}
	k := set.Keys[0]
	if len(k) != 6 || k["kty"] != "RSA" || k["use"] != "sig" || k["alg"] != "RS256" || k["e"] != "AQAB" || k["kid"] == "" || len(k["n"]) < 340 {
		t.Errorf("got %v", k)
	}
	for _, private := range []string{"d", "p", "q", "dp", "dq", "qi"} {
		if k[private] != "" {
			t.Errorf("%s is published", private)
		}
	}
	if !w.keys().Keys[0].Valid() || !w.keys().Keys[0].IsPublic() {
		t.Error("go-jose does not take it")
	}
}
