package store

import (
	"bytes"
	"errors"
	"testing"
)

func testSealer(t testing.TB, k *Key, kind string) *sealer {
	t.Helper()
	h := head{Product: product, Kind: kind, Major: 1, File: "000102030405060708090a0b0c0d0e0f", Key: k.ID()}
	return value(newSealer(k, h))(t)
}

func TestSealedValueOpensOnlyWhereItWasPut(t *testing.T) {
	s := testSealer(t, testKey(t), "identity")
	p := place{"token", "a"}
	sealed := value(s.seal(p, currentSchema(), 7, []byte("value")))(t)
	plain, generation, err := s.open(p, sealed)
	must(t, err)
	if string(plain) != "value" || generation != 7 {
		t.Fatalf("got %q at %d, want \"value\" at 7", plain, generation)
	}
	otherKey := value(newKey(bytes.Repeat([]byte{1}, keyBytes), Options{}))(t)
	otherFile := value(newSealer(testKey(t), head{Kind: "identity", File: "ff0102030405060708090a0b0c0d0e0f"}))(t)
	older := bytes.Clone(sealed)
	older[10] = 6
	for name, open := range map[string]func() error{
		"another key":        func() error { _, _, err := s.open(place{"token", "b"}, sealed); return err },
		"another bucket":     func() error { _, _, err := s.open(place{"tokens", "a"}, sealed); return err },
		"one as long":        func() error { _, _, err := s.open(place{"taken", "a"}, sealed); return err },
		"border moved":       func() error { _, _, err := s.open(place{"toke", "na"}, sealed); return err },
		"another file":       func() error { _, _, err := otherFile.open(p, sealed); return err },
		"another kind":       func() error { _, _, err := testSealer(t, testKey(t), "cache").open(p, sealed); return err },
		"another device":     func() error { _, _, err := testSealer(t, otherKey, "identity").open(p, sealed); return err },
		"another generation": func() error { _, _, err := s.open(p, older); return err },
		"nothing":            func() error { _, _, err := s.open(p, nil); return err },
	} {
		if err := open(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: error %v, want ErrCorrupt", name, err)
		}
	}
}

func TestSealedValueWithAnyBitFlippedIsRefused(t *testing.T) {
	s := testSealer(t, testKey(t), "identity")
	p := place{"token", "a"}
	sealed := value(s.seal(p, currentSchema(), 7, []byte("some value")))(t)
	for bit := range 8 * len(sealed) {
		bad := bytes.Clone(sealed)
		bad[bit/8] ^= 1 << (bit % 8)
		if plain, _, err := s.open(p, bad); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("bit %d: got %q, %v, want ErrCorrupt", bit, plain, err)
		}
	}
	for n := range sealed {
		if _, _, err := s.open(p, sealed[:n]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut to %d bytes: %v, want ErrCorrupt", n, err)
		}
	}
}

func TestSealingTwiceGivesDifferentBytes(t *testing.T) {
	s := testSealer(t, testKey(t), "identity")
	a := value(s.seal(place{"b", "k"}, currentSchema(), 1, []byte("v")))(t)
	b := value(s.seal(place{"b", "k"}, currentSchema(), 1, []byte("v")))(t)
	if bytes.Equal(a[headerLen:], b[headerLen:]) {
		t.Fatal("the nonce was used twice")
	}
}

func TestDigestDependsOnMembersNotOnTheirOrder(t *testing.T) {
	s := testSealer(t, testKey(t), "identity")
	var a, b, empty digest
	members := []place{{"b", "1"}, {"b", "2"}, {"c", "1"}}
	for i := range members {
		s.toggle(&a, members[i], uint64(i))
		s.toggle(&b, members[len(members)-1-i], uint64(len(members)-1-i))
	}
	if a != b || a == empty {
		t.Fatal("the same members give different sums, or none")
	}
	s.toggle(&a, members[0], 0)
	s.toggle(&a, members[0], 9) // the same place, another generation
	if a == b {
		t.Fatal("an older value in the place of a newer one was not noticed")
	}
	if other := testSealer(t, testKey(t), "cache"); other != nil {
		var c digest
		other.toggle(&c, members[0], 0)
		s.toggle(&empty, members[0], 0)
		if c == empty {
			t.Fatal("the sum does not depend on the file's key")
		}
	}
}

func FuzzEnvelope(f *testing.F) {
	s := testSealer(f, testKey(f), "identity")
	p := place{"token", "a"}
	good := value(s.seal(p, currentSchema(), 7, []byte("value")))(f)
	f.Add(good)
	f.Add(good[:envelopeLeast])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, sealed []byte) {
		plain, _, err := s.open(p, sealed)
		if err == nil && string(plain) != "value" { // each fuzzing process has sealed its own
			t.Fatalf("%x opened as %q", sealed, plain)
		}
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatalf("error %v, want ErrCorrupt", err)
		}
	})
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"kind":"SystemAssigned","client_id":"a","current":{"protection":"file","chain":["AA=="]}}`))
	f.Add([]byte(`{"client_id":"a","resource":"r","issued_boot_ns":5}`))
	f.Add([]byte(`{"floor":"not a time"}`))
	f.Fuzz(func(t *testing.T, plain []byte) {
		for _, v := range []any{new(IdentityRecord), new(TokenRecord), new(DeviceRecord), new(ContactRecord)} {
			if err := decode(place{"b", "k"}, plain, v); err != nil && !errors.Is(err, ErrCorrupt) {
				t.Fatalf("error %v, want ErrCorrupt", err)
			}
		}
		if _, err := newPicture(map[place][]byte{{deviceBucket, deviceKey}: plain, {identityBucket, "a"}: plain}); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatalf("error %v, want ErrCorrupt", err)
		}
	})
}
