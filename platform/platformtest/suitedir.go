package platformtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"postern/platform"
)

// held makes a token directory and opens it.
func (s suite) held(t *testing.T) (string, platform.Dir) {
	t.Helper()
	path := s.path("held")
	must(t, s.Secure(path, platform.TokenReaders))
	d, err := s.OpenDir(path, platform.TokenReaders)
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	if d.Path() != path {
		t.Errorf("path is %s, want %s", d.Path(), path)
	}
	return path, d
}

func dirFiles(t *testing.T, s suite) {
	path, d := s.held(t)
	must(t, d.Check())
	must(t, d.Create("a.key", []byte("secret")))
	wantContent(t, filepath.Join(path, "a.key"), "secret")
	must(t, s.Check(filepath.Join(path, "a.key"), platform.TokenReaders))
	wantIs(t, d.Create("a.key", []byte("other")), fs.ErrExist)
	wantContent(t, filepath.Join(path, "a.key"), "secret")
	must(t, d.Create("b.key", nil))
	entries, err := d.Names()
	must(t, err)
	if len(entries) != 2 {
		t.Errorf("names are %+v, want two", entries)
	}
	for _, e := range entries {
		if !e.Ours || e.Birth.IsZero() {
			t.Errorf("entry %+v is not ours or has no birth", e)
		}
	}
	must(t, d.Remove("a.key"))
	wantIs(t, d.Remove("a.key"), fs.ErrNotExist)
	must(t, d.Check())
}

// dirNames aims at a file of its own outside the directory, never at one of
// the system: with the guard gone, this test deletes what it names.
func dirNames(t *testing.T, s suite) {
	path, d := s.held(t)
	victim := s.path("victim")
	must(t, os.WriteFile(victim, []byte("stays"), 0o600))
	must(t, os.Mkdir(filepath.Join(path, "sub"), 0o700))
	for _, name := range []string{"", ".", "..", "sub/b", "../escape", "../victim", victim, "a\x00b"} {
		if err := d.Create(name, nil); err == nil {
			t.Errorf("%q was made", name)
		}
		if err := d.Remove(name); err == nil {
			t.Errorf("%q was removed", name)
		}
	}
	wantContent(t, victim, "stays")
	if _, err := os.Lstat(s.path("escape")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file outside was made: %v", err)
	}
}

func dirStrangers(t *testing.T, s suite) {
	path, d := s.held(t)
	must(t, os.Mkdir(filepath.Join(path, "sub"), 0o700))
	must(t, os.Symlink(s.path("nothing"), filepath.Join(path, "link")))
	entries, err := d.Names()
	must(t, err)
	if len(entries) != 2 {
		t.Errorf("names are %+v, want two", entries)
	}
	for _, e := range entries {
		if e.Ours {
			t.Errorf("%s is said to be ours", e.Name)
		}
		wantAccess(t, d.Remove(e.Name))
	}
	if entries, err = d.Names(); err != nil || len(entries) != 2 {
		t.Errorf("strangers left: %+v, %v", entries, err)
	}
}

// dirReplaced is ST16 and OS4: another directory took the path.
func dirReplaced(t *testing.T, s suite) {
	path, d := s.held(t)
	must(t, os.Rename(path, s.path("away")))
	must(t, s.Secure(s.path("other"), platform.TokenReaders))
	must(t, os.Rename(s.path("other"), path))
	wantAccess(t, d.Check())
	wantAccess(t, d.Create("a.key", []byte("secret")))
	wantAccess(t, s.WriteFile(filepath.Join(path, "state"), []byte("secret"), platform.Private))
	_, err := s.OpenFile(filepath.Join(path, "db"), os.O_CREATE|os.O_RDWR, platform.Private)
	wantAccess(t, err)
	for _, dir := range []string{path, s.path("away")} {
		entries, err := os.ReadDir(dir)
		must(t, err)
		if len(entries) != 0 {
			t.Errorf("%s holds %v, want nothing", dir, entries)
		}
	}
	again, err := s.OpenDir(path, platform.TokenReaders)
	must(t, err)
	must(t, again.Create("a.key", []byte("secret")))
	must(t, again.Close())
}

func dirRemoved(t *testing.T, s suite) {
	path, d := s.held(t)
	must(t, os.Remove(path))
	wantAccess(t, d.Check())
	wantAccess(t, d.Create("a.key", []byte("secret")))
}

func dirDrift(t *testing.T, s suite) {
	path, d := s.held(t)
	must(t, os.Chmod(path, 0o777))
	access := wantAccess(t, d.Check())
	if access.Fix == "" {
		t.Errorf("%+v names no fix", access)
	}
	must(t, os.Chmod(path, 0o700))
	if err := s.Secure(path, platform.Private); err != nil {
		t.Errorf("closed again, but %v", err)
	}
}

func dirClosed(t *testing.T, s suite) {
	_, d := s.held(t)
	must(t, d.Close())
	wantIs(t, d.Create("a.key", nil), fs.ErrClosed)
	wantIs(t, d.Remove("a.key"), fs.ErrClosed)
	wantIs(t, d.Check(), fs.ErrClosed)
	_, err := d.Names()
	wantIs(t, err, fs.ErrClosed)
}

func dirConcurrent(t *testing.T, s suite) {
	_, d := s.held(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				name := fmt.Sprintf("%d-%d.key", i, j)
				_, namesErr := d.Names()
				if err := errors.Join(d.Create(name, []byte(name)), namesErr, d.Check(), d.Remove(name)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if entries, err := d.Names(); err != nil || len(entries) != 0 {
		t.Errorf("left are %+v, %v", entries, err)
	}
}
