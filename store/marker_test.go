package store

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMarkerNamesKeysAndHoldsNoSecret(t *testing.T) {
	key := value(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	der := value(x509.MarshalPKCS8PrivateKey(key))(t)
	public := value(x509.MarshalPKIXPublicKey(key.Public()))(t)
	m := marker{State: markerPresent, Generation: 4, Key: "k", Identities: mark([]IdentityRecord{{
		ClientID: "c", Name: "n", Kind: "SystemAssigned", Current: &KeyRecord{PKCS8: der}, Pending: &KeyRecord{PKCS8: der},
	}})}
	text := value(m.encode())(t)
	if !strings.Contains(string(text), hexSum(public)) {
		t.Fatalf("the public key's fingerprint is not in\n%s", text)
	}
	if strings.Count(string(text), hexSum(public)) != 1 {
		t.Fatal("a key that is current and pending is listed twice")
	}
	got := value(decodeMarker(text))(t)
	if got.Generation != 4 || got.State != markerPresent || len(got.Identities) != 1 {
		t.Fatalf("got %+v", got)
	}
}

func TestMarkerWithAnyBitFlippedIsDamaged(t *testing.T) {
	text := value(marker{State: markerPresent, Generation: 1}.encode())(t)
	for bit := range 8 * len(text) {
		bad := bytes.Clone(text)
		bad[bit/8] ^= 1 << (bit % 8)
		if m, err := decodeMarker(bad); !errors.Is(err, ErrDamaged) {
			t.Fatalf("bit %d: got %+v, %v, want ErrDamaged", bit, m, err)
		}
	}
	for n := range text {
		if _, err := decodeMarker(text[:n]); !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut to %d bytes: %v, want ErrDamaged", n, err)
		}
	}
}

func TestMissingMarkerIsAnAnswerAndAHugeOneIsNot(t *testing.T) {
	path := filepath.Join(t.TempDir(), markerName)
	o := Options{}.filled()
	if m, err := readMarker(path, o); m != nil || err != nil {
		t.Fatalf("got %v, %v, want nothing", m, err)
	}
	huge := marker{State: markerPresent, Generation: 1, Identities: []markedIdentity{{Name: strings.Repeat("x", markerLimit)}}}
	text := value(huge.encode())(t) // which is otherwise right
	if _, err := decodeMarker(text); err != nil {
		t.Fatal(err)
	}
	must(t, os.WriteFile(path, text, 0o600))
	_, err := readMarker(path, o)
	wantError(t, err, ErrDamaged)
}

func FuzzMarker(f *testing.F) {
	f.Add(value(marker{State: markerPresent, Generation: 1}.encode())(f))
	f.Add([]byte(`{"schema":"postern.identity/2","state":"x","sum":""}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := decodeMarker(text)
		if err == nil && m.State != markerPresent && m.State != markerDestroying {
			t.Fatalf("%q was taken for a marker", text)
		}
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNewer) {
			t.Fatalf("error %v is none of ErrDamaged, ErrNewer", err)
		}
	})
}
