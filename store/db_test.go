package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
)

type thing struct {
	N int    `json:"n"`
	S string `json:"s,omitempty"`
}

func put(t testing.TB, d *DB, bucket, key string, v thing) {
	t.Helper()
	must(t, d.Update(func(tx *Tx) error { return Put(tx, bucket, key, v) }))
}

func get(d *DB, bucket, key string) (v thing, err error) {
	err = d.View(func(tx *Tx) error {
		v, err = Get[thing](tx, bucket, key)
		return err
	})
	return v, err
}

func TestWhatWasPutIsThereAfterReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "authority.db")
	d := value(Open(t.Context(), path, testKey(t), Options{}))(t)
	put(t, d, "b", "k", thing{N: 1})
	put(t, d, "b", "k2", thing{N: 2, S: "two"})
	must(t, d.Update(func(tx *Tx) error { return Delete(tx, "b", "k") }))
	must(t, d.Close())
	d = openDB(t, path, Options{})
	_, err := get(d, "b", "k")
	wantError(t, err, ErrNotFound)
	_, err = get(d, "none", "k")
	wantError(t, err, ErrNotFound)
	if got := value(get(d, "b", "k2"))(t); got != (thing{2, "two"}) {
		t.Fatalf("got %+v", got)
	}
	if h := d.Health(); h.Mode != ModeDisk || h.Generation != 4 || h.Protection != "file" || h.Bytes == 0 {
		t.Fatalf("health %+v", h)
	}
}

func TestEachWalksInOrderAndMayChangeTheBucket(t *testing.T) {
	d := openDB(t, filepath.Join(t.TempDir(), "x.db"), Options{})
	for i := range 20 {
		put(t, d, "b", fmt.Sprintf("%02d", 19-i), thing{N: 19 - i})
	}
	seen := 0
	must(t, d.Update(func(tx *Tx) error {
		return Each(tx, "b", func(key string, v thing) error {
			if v.N != seen {
				return fmt.Errorf("%s came at place %d", key, seen)
			}
			seen++
			if v.N%2 == 0 {
				return Put(tx, "b", key, thing{N: 100})
			}
			if v.N == 3 {
				seen += 2 // 4 and 5 are taken away, 5 before it came
				return errors.Join(Delete(tx, "b", "04"), Delete(tx, "b", "05"))
			}
			return nil
		})
	}))
	if seen != 20 {
		t.Fatalf("saw %d of 20", seen)
	}
	stop := errors.New("stop")
	err := d.View(func(tx *Tx) error { return Each(tx, "b", func(string, thing) error { return stop }) })
	wantError(t, err, stop)
	must(t, d.View(func(tx *Tx) error { return Each(tx, "none", func(string, thing) error { return stop }) }))
}

func TestFailedUpdateChangesNothing(t *testing.T) {
	d := openDB(t, filepath.Join(t.TempDir(), "x.db"), Options{})
	put(t, d, "b", "k", thing{N: 1})
	no := errors.New("no")
	err := d.Update(func(tx *Tx) error {
		return errors.Join(Put(tx, "b", "k", thing{N: 2}), Put(tx, "new", "k", thing{N: 2}), no)
	})
	wantError(t, err, no)
	if got := value(get(d, "b", "k"))(t); got.N != 1 {
		t.Fatalf("got %+v", got)
	}
	put(t, d, "b", "k2", thing{N: 3}) // and the sum still fits
	must(t, d.Close())
	must(t, openDB(t, d.path, Options{}).Check(t.Context()))
}

func TestUpdateThatChangesNothingWritesNothing(t *testing.T) {
	d := openDB(t, filepath.Join(t.TempDir(), "x.db"), Options{})
	put(t, d, "b", "k", thing{N: 1})
	before, bytes := d.Health(), contents(t, filepath.Dir(d.path))
	must(t, d.Update(func(tx *Tx) error { _, err := Get[thing](tx, "b", "k"); return err }))
	must(t, d.View(func(*Tx) error { return nil }))
	for range 3 {
		must(t, d.Check(t.Context()))
	}
	if after := d.Health(); after.Written != before.Written || after.Generation != before.Generation {
		t.Fatalf("before %+v\nafter %+v", before, after)
	}
	if fmt.Sprint(contents(t, filepath.Dir(d.path))) != fmt.Sprint(bytes) {
		t.Fatal("bytes on the disk changed")
	}
}

func TestBadNamesAndValuesAreRefusedWithoutDamage(t *testing.T) {
	d := openDB(t, filepath.Join(t.TempDir(), "x.db"), Options{})
	for name, f := range map[string]func(tx *Tx) error{
		"our own bucket": func(tx *Tx) error { return Put(tx, ownBucket, rootKey, thing{}) },
		"no bucket":      func(tx *Tx) error { return Put(tx, "", "k", thing{}) },
		"no key":         func(tx *Tx) error { return Put(tx, "b", "", thing{}) },
		"long key":       func(tx *Tx) error { return Put(tx, "b", strings.Repeat("k", bolt.MaxKeySize+1), thing{}) },
		"no JSON":        func(tx *Tx) error { return Put(tx, "b", "k", func() {}) },
		"delete nothing": func(tx *Tx) error { return Delete(tx, "b", "k") },
	} {
		if err := d.Update(f); err == nil || errors.Is(err, ErrDamaged) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	put(t, d, "b", "k", thing{N: 1})
	err := d.View(func(tx *Tx) error { _, err := Get[string](tx, "b", "k"); return err })
	wantError(t, err, ErrCorrupt)
	if strings.Contains(err.Error(), `"n"`) {
		t.Fatalf("%v quotes the value", err)
	}
}

func TestPanicOfTheCallerIsTheCallersAndLeavesTheFileUsable(t *testing.T) {
	d := openDB(t, filepath.Join(t.TempDir(), "x.db"), Options{})
	for name, run := range map[string]func(func(*Tx) error) error{"view": d.View, "update": d.Update} {
		func() {
			defer func() {
				if p := recover(); p != "mine" {
					t.Errorf("%s: recovered %v, want mine", name, p)
				}
			}()
			_ = run(func(*Tx) error { panic("mine") })
		}()
	}
	put(t, d, "b", "k", thing{N: 1})
}

func TestPanicOfTheDatabaseIsAnError(t *testing.T) {
	err := guard(func() error { panic("assertion failed: page 7") })
	wantError(t, err, ErrDamaged)
	if !wasCaught(err) {
		t.Fatal("not marked as caught")
	}
}

// rewriteRaw changes the file behind the store's back, by bbolt alone.
func rewriteRaw(t testing.TB, path string, f func(tx *bolt.Tx) error) {
	t.Helper()
	b := value(bolt.Open(path, 0o600, nil))(t)
	must(t, b.Update(f))
	must(t, b.Close())
}

// A thief with a pen: each of these files is structurally perfect, and holds
// only values that the store itself once wrote.
func TestValuesThatAreNotTheNewestAreNoticedAtOpen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "authority.db")
	d := value(Open(t.Context(), path, testKey(t), Options{}))(t)
	put(t, d, "b", "a", thing{N: 1})
	put(t, d, "b", "z", thing{N: 1})
	must(t, d.Close())
	old := map[string][]byte{}
	readRaw := func(bucket, key string) {
		b := value(bolt.Open(path, 0o600, nil))(t)
		must(t, b.View(func(tx *bolt.Tx) error {
			old[key] = append([]byte{}, tx.Bucket([]byte(bucket)).Get([]byte(key))...)
			return nil
		}))
		must(t, b.Close())
	}
	readRaw("b", "a")
	readRaw(ownBucket, rootKey)
	d = value(Open(t.Context(), path, testKey(t), Options{}))(t)
	put(t, d, "b", "a", thing{N: 2})
	put(t, d, "b", "c", thing{N: 3})
	must(t, d.Close())
	good := contents(t, dir)
	for name, change := range map[string]func(b *bolt.Bucket) error{
		"one value rolled back": func(b *bolt.Bucket) error { return b.Put([]byte("a"), old["a"]) },
		"one value missing":     func(b *bolt.Bucket) error { return b.Delete([]byte("c")) },
		"one value copied":      func(b *bolt.Bucket) error { return b.Put([]byte("d"), b.Get([]byte("c"))) },
		"two values swapped": func(b *bolt.Bucket) error {
			a, c := append([]byte{}, b.Get([]byte("a"))...), append([]byte{}, b.Get([]byte("c"))...)
			return errors.Join(b.Put([]byte("a"), c), b.Put([]byte("c"), a))
		},
		"root rolled back": func(b *bolt.Bucket) error {
			return b.Tx().Bucket([]byte(ownBucket)).Put([]byte(rootKey), old[rootKey])
		},
		"value and root rolled back": func(b *bolt.Bucket) error {
			return errors.Join(b.Put([]byte("a"), old["a"]), b.Tx().Bucket([]byte(ownBucket)).Put([]byte(rootKey), old[rootKey]))
		},
		"value under the bucket's sum": func(b *bolt.Bucket) error { return b.Put([]byte("e"), []byte("plain")) },
		"bucket in a bucket":           func(b *bolt.Bucket) error { _, err := b.CreateBucket([]byte("f")); return err },
		"root removed":                 func(b *bolt.Bucket) error { return b.Tx().Bucket([]byte(ownBucket)).Delete([]byte(rootKey)) },
	} {
		evil := lay(t, good)
		rewriteRaw(t, filepath.Join(evil, "authority.db"), func(tx *bolt.Tx) error { return change(tx.Bucket([]byte("b"))) })
		if _, err := Open(t.Context(), filepath.Join(evil, "authority.db"), testKey(t), Options{}); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: error %v, want ErrDamaged", name, err)
		}
	}
	must(t, openDB(t, filepath.Join(lay(t, good), "authority.db"), Options{}).Check(t.Context()))
}

func TestFileIsRefusedForAnotherKeyKindOrOwner(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "authority.db")
	d := value(Open(t.Context(), path, testKey(t), Options{}))(t)
	must(t, d.Close())
	other := value(newKey([]byte(strings.Repeat("o", keyBytes)), Options{}))(t)
	_, err := Open(t.Context(), path, other, Options{})
	wantError(t, err, ErrWrongKey)
	if !strings.Contains(err.Error(), other.ID()) || !strings.Contains(err.Error(), testKey(t).ID()) {
		t.Fatalf("%v does not name both keys", err)
	}
	must(t, os.Rename(path, filepath.Join(dir, "cache.db")))
	_, err = Open(t.Context(), filepath.Join(dir, "cache.db"), testKey(t), Options{})
	wantError(t, err, ErrForeign)
	foreign := filepath.Join(dir, "foreign.db")
	rewriteRaw(t, foreign, func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("theirs")); return err })
	_, err = Open(t.Context(), foreign, testKey(t), Options{})
	wantError(t, err, ErrForeign)
}

func TestBackupReplacesADamagedFileAndTheDamagedOneIsKept(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "authority.db")
	d := value(Open(t.Context(), path, testKey(t), Options{}))(t)
	put(t, d, "b", "k", thing{N: 1})
	must(t, d.Backup(t.Context()))
	must(t, d.Close())
	must(t, os.WriteFile(path, []byte("garbage"), 0o600))
	d = openDB(t, path, Options{})
	if got := value(get(d, "b", "k"))(t); got.N != 1 {
		t.Fatalf("got %+v", got)
	}
	if h := d.Health(); !strings.Contains(h.Recovered, "backup copy") || h.RecoveredAt.IsZero() {
		t.Fatalf("health %+v", h)
	}
	kept := asides(dir, "authority.db.damaged-")
	if len(kept) != 1 || string(value(os.ReadFile(kept[0]))(t)) != "garbage" {
		t.Fatalf("the damaged file was not kept: %v", kept)
	}
}

func TestClosedFileSaysSo(t *testing.T) {
	d := value(Open(t.Context(), filepath.Join(t.TempDir(), "x.db"), testKey(t), Options{}))(t)
	must(t, d.Close())
	must(t, d.Close())
	wantError(t, d.Update(func(*Tx) error { return nil }), ErrClosed)
	wantError(t, d.View(func(*Tx) error { return nil }), ErrClosed)
	wantError(t, d.Check(t.Context()), ErrClosed)
	wantError(t, d.Backup(t.Context()), ErrClosed)
	if d.Health().Mode != ModeClosed {
		t.Fatalf("mode %s", d.Health().Mode)
	}
}

// ST18: kernels with larger pages open a file of 4 KB pages; what decides is
// that we never make another.
func TestST18_PageSizeIsFourKilobytesWhateverTheKernel(t *testing.T) {
	d := openDB(t, filepath.Join(t.TempDir(), "x.db"), Options{})
	m := value(readMeta(d.file.file, d.file.size()))(t)
	if m.page != 4096 {
		t.Fatalf("page size %d, want 4096", m.page)
	}
}
