package store

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestHeadSaysWhatAFileIs(t *testing.T) {
	h := value(newHead("cache", currentSchema(), testKey(t)))(t)
	text := value(h.encode())(t)
	got := value(decodeHead(text, currentSchema()))(t)
	if got.Kind != "cache" || got.Key != testKey(t).ID() || got.schema() != currentSchema() || !bytes.Equal(got.id(), h.id()) {
		t.Fatalf("got %+v, want %+v", got, h)
	}
}

// A flipped bit must never pass for a newer schema: the identity would then be
// left unrestored as another release's.
func TestDamagedHeadIsNeverTakenForANewerOne(t *testing.T) {
	h := value(newHead("identity", currentSchema(), testKey(t)))(t)
	text := value(h.encode())(t)
	for bit := range 8 * len(text) {
		bad := bytes.Clone(text)
		bad[bit/8] ^= 1 << (bit % 8)
		if _, err := decodeHead(bad, currentSchema()); !errors.Is(err, ErrDamaged) || errors.Is(err, ErrNewer) {
			t.Fatalf("bit %d: %v, want ErrDamaged\n%s", bit, err, bad)
		}
	}
}

func TestHeadOfANewerReleaseIsRefusedByNameWhateverItHolds(t *testing.T) {
	h := value(newHead("identity", schema{2, 3}, testKey(t)))(t)
	text := string(value(h.encode())(t))
	_, err := decodeHead([]byte(text), currentSchema())
	wantError(t, err, ErrNewer)
	if !strings.Contains(err.Error(), "2.3") || !strings.Contains(err.Error(), "1.x") {
		t.Fatalf("%v does not name both versions", err)
	}
	minor := value(newHead("identity", schema{1, 9}, testKey(t)))(t)
	if _, err := decodeHead(value(minor.encode())(t), currentSchema()); err != nil {
		t.Fatalf("a newer minor must open: %v", err)
	}
}

func TestRootDecodesWhatItEncodes(t *testing.T) {
	r := root{generation: 3, count: 9, set: digest{1, 2, 3}}
	if got := value(decodeRoot(r.encode(), 3))(t); got != r {
		t.Fatalf("got %+v, want %+v", got, r)
	}
	_, err := decodeRoot(r.encode()[1:], 3)
	wantError(t, err, ErrDamaged)
}

func FuzzHead(f *testing.F) {
	h := value(newHead("identity", currentSchema(), testKey(f)))(f)
	f.Add(value(h.encode())(f))
	f.Add([]byte(`{"product":"postern","major":9,"sum":""}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := decodeHead(text, currentSchema())
		if err == nil && (len(got.id()) != fileIDLen || got.Product != product || got.Major > 1) {
			t.Fatalf("%q was taken for a head", text)
		}
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNewer) {
			t.Fatalf("error %v is none of ErrDamaged, ErrNewer", err)
		}
	})
}
