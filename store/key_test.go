package store

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKeyIsMadeOnceAndReadBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	_, err := LoadKey(path, Options{})
	wantError(t, err, ErrNotFound)
	k := value(CreateKey(path, Options{}))(t)
	_, err = CreateKey(path, Options{})
	wantError(t, err, fs.ErrExist)
	if got := value(LoadKey(path, Options{}))(t); got.ID() != k.ID() || got.Protection() != "file" {
		t.Fatalf("read back %s, made %s", got.ID(), k.ID())
	}
	info := value(os.Lstat(path))(t)
	if info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, want 0600", info.Mode())
	}
}

func TestKeyFileSurvivesADamagedPage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	k := value(CreateKey(path, Options{}))(t)
	whole := value(os.ReadFile(path))(t)
	for name, damage := range map[string]func([]byte) []byte{
		"first page zeroed":  func(b []byte) []byte { clear(b[:4096]); return b },
		"second page zeroed": func(b []byte) []byte { clear(b[4096:8192]); return b },
		"cut to 8 KB":        func(b []byte) []byte { return b[:8192] },
		"cut to 4 KB":        func(b []byte) []byte { return b[:4096] },
		"a flipped bit":      func(b []byte) []byte { b[40] ^= 4; return b },
		"two copies flipped": func(b []byte) []byte { b[40] ^= 4; b[8192+70] ^= 1; return b },
	} {
		must(t, os.WriteFile(path, damage(bytes.Clone(whole)), 0o600))
		got, err := LoadKey(path, Options{})
		if err != nil || got.ID() != k.ID() {
			t.Fatalf("%s: got %v, %v", name, got, err)
		}
		if !bytes.Equal(value(os.ReadFile(path))(t), whole) {
			t.Fatalf("%s: the file was not put right", name)
		}
	}
}

func TestWorthlessKeyFileIsDamagedAndKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	two := bytes.Clone(encodeKeyFile(bytes.Repeat([]byte{1}, keyBytes)))
	copy(two[keyStride:], encodeKeyFile(bytes.Repeat([]byte{2}, keyBytes))[:keyLine])
	for name, content := range map[string][]byte{
		"empty": {}, "text": []byte("hello"), "zeros": make([]byte, 9000), "huge": make([]byte, keyLimit+1), "two keys": two,
	} {
		must(t, os.WriteFile(path, content, 0o600))
		_, err := LoadKey(path, Options{})
		wantError(t, err, ErrDamaged)
		if !bytes.Equal(value(os.ReadFile(path))(t), content) {
			t.Fatalf("%s: the file was changed", name)
		}
	}
	must(t, os.WriteFile(path, bytes.Repeat([]byte{7}, keyBytes), 0o600))
	if _, err := LoadKey(path, Options{}); err != nil {
		t.Fatalf("32 raw bytes, as an image builder writes them: %v", err)
	}
}

func TestExternalPartChangesTheKeyAndItsProtection(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	plain := value(CreateKey(path, Options{}))(t)
	o := Options{External: NewSecret(strings.Repeat("e", 32)), Protection: "credential"}
	mixed := value(LoadKey(path, o))(t)
	if mixed.ID() == plain.ID() || mixed.Protection() != "credential" {
		t.Fatalf("id %s, protection %s", mixed.ID(), mixed.Protection())
	}
	must(t, os.Remove(path))
	must(t, mixed.keep(path, o.filled()))
	if again := value(LoadKey(path, o))(t); again.ID() != mixed.ID() {
		t.Fatal("the key file that was written anew holds another key")
	}
}

func TestKeyIsNeverPrinted(t *testing.T) {
	k := testKey(t)
	for _, text := range []string{fmt.Sprintf("%v %+v %#v", k, *k, *k), fmt.Sprint(k.derive(nil, "key id", 8))} {
		if strings.Contains(text, "kkkk") || strings.Contains(text, "107 107 107") {
			t.Fatalf("the key shows in %q", text)
		}
	}
}

// The places where a secret leaves its wrapper in this package.
func TestRevealIsCalledInThePlacesThatAreKnown(t *testing.T) {
	known := map[string]int{"key.go": 3, "secret.go": 3} // secret.go: the digests
	for _, path := range value(filepath.Glob("*.go"))(t) {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		if n := strings.Count(string(value(os.ReadFile(path))(t)), ".Reveal()"); n != known[path] {
			t.Errorf("%s calls Reveal %d times, want %d", path, n, known[path])
		}
	}
}

func FuzzKeyFile(f *testing.F) {
	f.Add(encodeKeyFile(bytes.Repeat([]byte{1}, keyBytes)))
	f.Add(bytes.Repeat([]byte{1}, keyBytes))
	f.Fuzz(func(t *testing.T, content []byte) {
		if raw, _ := decodeKeyFile(content); raw != nil && len(raw) != keyBytes {
			t.Fatalf("a key of %d bytes", len(raw))
		}
	})
}
