package platformtest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/platform"
)

// Dirs returns the simulated machine's directories.
func (s *Sim) Dirs() platform.Dirs { return s.dirs }

// SetFileSystem replaces the answer of FileSystem.
func (s *Sim) SetFileSystem(f platform.FileSystem) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.filesystem = f
}

// FileSystem is ext4 with a gigabyte free, but below the runtime directory,
// which is tmpfs.
func (s *Sim) FileSystem(path string) (platform.FileSystem, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if strings.HasPrefix(path, s.dirs.Runtime) {
		return platform.FileSystem{Type: "tmpfs", Volatile: true, Free: 1 << 20}, nil
	}
	return s.filesystem, nil
}

// Break makes every check of path fail with err until it is called with nil,
// as if somebody had changed its access.
func (s *Sim) Break(path string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken[path] = err
}

func (s *Sim) wipeRuntime(t testing.TB) {
	t.Helper()
	if err := os.RemoveAll(s.dirs.Runtime); err != nil {
		t.Fatal(err)
	}
	if err := s.Secure(s.dirs.Runtime, platform.Public); err != nil {
		t.Fatal(err)
	}
	if err := s.Secure(s.dirs.Tokens, platform.TokenReaders); err != nil {
		t.Fatal(err)
	}
}

func dirMode(a platform.Access) fs.FileMode {
	switch a {
	case platform.TokenReaders:
		return 0o750
	case platform.Public:
		return 0o755
	}
	return 0o700
}

func fileMode(a platform.Access) fs.FileMode { return dirMode(a) &^ 0o111 }

// verify is the plain check: type and mode.
func (s *Sim) verify(path string, info fs.FileInfo, a platform.Access) error {
	s.mu.Lock()
	broken := s.broken[path]
	s.mu.Unlock()
	if broken != nil {
		return broken
	}
	refuse := func(format string, args ...any) error {
		return &platform.AccessError{Path: path, Want: a, Problem: fmt.Sprintf(format, args...)}
	}
	allowed := fileMode(a)
	switch {
	case info.IsDir():
		allowed = dirMode(a)
	case !info.Mode().IsRegular():
		return refuse("is a %s", info.Mode().Type())
	}
	if extra := info.Mode().Perm() &^ allowed & 0o077; extra != 0 {
		err := &platform.AccessError{
			Path: path, Want: a,
			Problem: fmt.Sprintf("mode %04o, want %04o", info.Mode().Perm(), allowed),
			Fix:     fmt.Sprintf("chmod %04o %s", allowed, path),
		}
		if extra&0o044 != 0 {
			err.Readers = "others"
		}
		return err
	}
	return nil
}

// Secure makes or verifies a directory.
func (s *Sim) Secure(path string, a platform.Access) error {
	err := os.Mkdir(path, 0o700)
	if err == nil {
		return os.Chmod(path, dirMode(a))
	}
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return &platform.AccessError{Path: path, Want: a, Problem: "is a " + info.Mode().Type().String() + ", want a directory"}
	}
	return s.verify(path, info, a)
}

// Check verifies type and mode.
func (s *Sim) Check(path string, a platform.Access) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	return s.verify(path, info, a)
}

// sameAsHeld refuses a directory that took the place of a held one.
func (s *Sim) sameAsHeld(path string) error {
	s.mu.Lock()
	d := s.held[path]
	s.mu.Unlock()
	if d == nil {
		return nil
	}
	return d.inPlace()
}

// WriteFile replaces path atomically; it is not synced, since a simulated
// power cut does not lose the test's own disk.
func (s *Sim) WriteFile(path string, content []byte, a platform.Access) error {
	if err := s.sameAsHeld(filepath.Dir(path)); err != nil {
		return err
	}
	if info, err := os.Lstat(path); err == nil {
		if info.IsDir() {
			return &platform.AccessError{Path: path, Want: a, Problem: "is a directory, want a regular file"}
		}
		if err := s.verify(path, info, a); err != nil {
			return err
		}
	}
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+rand.Text()+".tmp")
	if err := writeNew(temp, content, fileMode(a)); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

func writeNew(path string, content []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(mode)
	}
	return errors.Join(err, f.Close())
}

// OpenFile opens a regular file after verification.
func (s *Sim) OpenFile(path string, flag int, a platform.Access) (*os.File, error) {
	if err := s.sameAsHeld(filepath.Dir(path)); err != nil {
		return nil, err
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f, err := os.OpenFile(path, flag, 0o600)
		if err != nil {
			return nil, err
		}
		if err := f.Chmod(fileMode(a)); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return f, nil
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, &platform.AccessError{Path: path, Want: a, Problem: "is a " + info.Mode().Type().String() + ", want a regular file"}
	}
	if err := s.verify(path, info, a); err != nil {
		return nil, err
	}
	return os.OpenFile(path, flag, 0o600)
}
