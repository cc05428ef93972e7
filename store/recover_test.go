package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// lose takes the open file away, as a failed commit does.
func lose(d *DB) {
	d.write.Lock()
	defer d.write.Unlock()
	d.uninstall(false)
}

// What was acknowledged is in memory. A file that shows less when it is opened
// again, a commit that never reached the disk, does not take it away.
func TestFileThatWentBackUnderTheRunningProcessIsWrittenFromMemory(t *testing.T) {
	dir := stateDir(t)
	old := contents(t, dir)
	f, c := openIdentity(t, dir, Options{}), openCache(t, dir, Options{})
	must(t, f.Update(func(tx *IdentityTx) error { return tx.PutIdentity(testIdentity("a", 2)) }))
	commit(t, c, Change{PutTokens: []TokenRecord{token("a", "r", 2)}})
	lose(f.db)
	lose(c.db)
	for _, name := range []string{identityName, cacheName} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(old[name]), 0o600))
	}
	must(t, errors.Join(f.Check(t.Context()), c.Check(t.Context())))
	for _, h := range []Health{f.Health(), c.Health()} {
		if !strings.Contains(h.Recovered, "went back") {
			t.Errorf("health %+v", h)
		}
	}
	must(t, errors.Join(f.Close(), c.Close()))
	sameIdentities(t, openIdentity(t, dir, Options{}), testIdentity("a", 2), testIdentity("b", 1))
	wantTokens(t, openCache(t, dir, Options{}), token("a", "r", 2))
}

// A commit that was reported as failed, and reached the disk all the same, does
// not come back at the next start.
func TestCommitThatNobodyWasToldOfIsUndone(t *testing.T) {
	dir := stateDir(t)
	elsewhere := lay(t, contents(t, dir))
	g := value(OpenIdentity(t.Context(), elsewhere, Options{}))(t)
	must(t, g.Update(func(tx *IdentityTx) error { return tx.PutIdentity(testIdentity("a", 7)) }))
	must(t, g.Close())
	f := openIdentity(t, dir, Options{})
	lose(f.db)
	must(t, os.WriteFile(filepath.Join(dir, identityName), []byte(contents(t, elsewhere)[identityName]), 0o600))
	must(t, f.Check(t.Context()))
	must(t, f.Close())
	f = openIdentity(t, dir, Options{})
	sameIdentities(t, f, testIdentity("a", 1), testIdentity("b", 1))
	if h := f.Health(); h.Recovered != "" {
		t.Fatalf("health %+v", h)
	}
}

func TestLinkThatAppearsUnderTheRunningProcessIsRefused(t *testing.T) {
	dir := stateDir(t)
	f, c := openIdentity(t, dir, Options{}), openCache(t, dir, Options{})
	target := filepath.Join(t.TempDir(), "target")
	must(t, os.WriteFile(target, []byte("precious"), 0o600))
	for _, name := range []string{identityName, cacheName} {
		path := filepath.Join(dir, name)
		must(t, errors.Join(os.Remove(path), os.Symlink(target, path)))
	}
	wantError(t, f.Check(t.Context()), ErrUnsafe)
	wantError(t, c.Check(t.Context()), ErrUnsafe)
	if !strings.Contains(c.Health().Problem, "symbolic link") || string(value(os.ReadFile(target))(t)) != "precious" {
		t.Fatalf("health %+v", c.Health())
	}
	for _, name := range []string{identityName, cacheName} {
		if info := value(os.Lstat(filepath.Join(dir, name)))(t); info.Mode()&os.ModeSymlink == 0 {
			t.Errorf("the link at %s is gone", name)
		}
		must(t, os.Remove(filepath.Join(dir, name)))
	}
	must(t, errors.Join(f.Check(t.Context()), c.Check(t.Context())))
	if h := c.Health(); h.Problem != "" || h.Mode != ModeDisk {
		t.Fatalf("health %+v", h)
	}
}

// A value that goes bad in the file while it is open is found when it is
// written over, before the sum of the file would go wrong for good.
func TestValueThatWentBadUnderTheRunningProcessIsFoundWhenItIsReplaced(t *testing.T) {
	path := filepath.Join(scratch(t), "authority.db")
	d := openDB(t, path, Options{})
	put(t, d, "b", "k", thing{N: 1})
	put(t, d, "b", "other", thing{N: 2})
	must(t, d.Backup(t.Context()))
	var sealed []byte
	must(t, d.View(func(tx *Tx) error {
		sealed = bytes.Clone(tx.bolt.Bucket([]byte("b")).Get([]byte("k")))
		return nil
	}))
	content := value(os.ReadFile(path))(t)
	file := value(os.OpenFile(path, os.O_WRONLY, 0))(t)
	for at := 0; ; at++ { // every copy of it, free pages included
		i := bytes.Index(content[at:], sealed)
		if i < 0 {
			break
		}
		at += i
		_, err := file.WriteAt([]byte{99}, int64(at+5)) // in the generation
		must(t, err)
	}
	must(t, file.Close())
	update := func(tx *Tx) error { return Put(tx, "b", "k", thing{N: 3}) }
	wantError(t, d.Update(update), ErrDamaged)
	must(t, d.Update(update))
	must(t, d.Close())
	d = openDB(t, path, Options{})
	if k, other := value(get(d, "b", "k"))(t), value(get(d, "b", "other"))(t); k.N != 3 || other.N != 2 {
		t.Fatalf("got %+v, %+v", k, other)
	}
}

// ST17: a backup copy that others could read is evidence until somebody has
// looked at it; the commit itself does not wait for that.
func TestST17_BackupCopyWithUnsafeAccessIsNotReplaced(t *testing.T) {
	dir := stateDir(t)
	path := filepath.Join(dir, identityName+".bak")
	drift := WithFix(errors.New("mode is 0644, want 0600"), "chmod 0600 "+path)
	unsafe := true
	o := Options{OpenFile: func(name string, flag int) (*os.File, error) {
		if unsafe && name == path {
			return nil, drift
		}
		return openPlain(name, flag)
	}}
	before := contents(t, dir)[identityName+".bak"]
	f := openIdentity(t, dir, o)
	must(t, f.Update(func(tx *IdentityTx) error { return tx.PutIdentity(testIdentity("a", 2)) }))
	for range 2 {
		if err := f.Check(t.Context()); err == nil {
			t.Error("the check is content")
		}
		if h := f.Health(); !strings.Contains(h.Problem, "0644") || h.Fix != FixOf(drift) {
			t.Errorf("health %+v", h)
		}
	}
	if contents(t, dir)[identityName+".bak"] != before {
		t.Fatal("the copy was replaced")
	}
	unsafe = false
	must(t, f.Check(t.Context()))
	if h := f.Health(); h.Problem != "" {
		t.Errorf("health %+v", h)
	}
	must(t, errors.Join(f.Close(), os.Remove(filepath.Join(dir, identityName))))
	sameIdentities(t, openIdentity(t, dir, o), testIdentity("a", 2), testIdentity("b", 1))
}
