//go:build linux

package install

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// tree is a small system, of which nobody but its owner may write anything.
func tree(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(volatileDir(t), "tree")
	for _, d := range []string{"", "etc", "usr/lib", "var/lib", "usr/sbin"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0::/root:/bin/sh\ndaemon:x:999:999::/:/bin/false\neve:x:1001:1001::/home/eve:/bin/sh\n",
		"etc/group":  "root:x:0:\ndaemon:x:999:\n", "etc/shadow": "root:*:::::::\n", "etc/gshadow": "root:*::\n",
		"etc/inittab": "id:2:initdefault:\nsi::sysinit:/etc/init.d/rcS\n", "etc/.pwd.lock": "", "usr/sbin/nologin": "",
	} {
		put(t, dir, name, text)
	}
	return dir
}

// volatileDir is in memory where there is such a place: thousands of files are
// synced here.
func volatileDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "postern-install-") //nolint:usetesting // t.TempDir cannot be told where
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

func put(t testing.TB, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// options are a whole installation into dir.
func options(dir, init string) Options {
	return Options{
		Root: dir, Init: init, Binary: []byte("\x7fELF one"), To: "/usr/bin/postern", Parts: []string{PartAgent, PartDiscovery},
		Arc: "127.0.0.1:40342", UID: -1, GID: -1,
	}
}

func install(o Options) error {
	p, err := New(o)
	if err != nil {
		return err
	}
	return p.Apply(nil, func(Step) {})
}

func uninstall(o Options, purge bool) error {
	p, err := Remove(o, purge, PartAgent, PartDiscovery)
	if err != nil {
		return err
	}
	return p.Take(nil, func(Step) {})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// snapshot is all that can be seen of a tree.
func snapshot(t testing.TB, dir string) map[string]string {
	t.Helper()
	seen := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st, _ := info.Sys().(*syscall.Stat_t)
		what := fmt.Sprintf("%s %d:%d", info.Mode(), st.Uid, st.Gid)
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			what += " -> " + target
		case info.Mode().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what += " " + string(content)
		}
		seen[strings.TrimPrefix(path, dir)] = what
		return nil
	}))
	return seen
}

// same fails with what differs between two snapshots.
func same(t testing.TB, when string, got, want map[string]string) {
	t.Helper()
	paths := slices.Sorted(maps.Keys(want))
	for path := range got {
		if _, known := want[path]; !known {
			paths = append(paths, path)
		}
	}
	for _, path := range paths {
		if got[path] != want[path] {
			a, b := got[path], want[path]
			for len(a) > 80 && len(b) > 80 && a[:40] == b[:40] { // what is alike says nothing
				a, b = a[40:], b[40:]
			}
			t.Errorf("%s: %s is %.300q, want %.300q", when, path, a, b)
		}
	}
}

var errStopped = errors.New("stopped here")

// stopper lets n changes pass and none after them, as a kill would.
type stopper struct{ left int }

func (s *stopper) before(string, string) error {
	if s.left == 0 {
		return errStopped
	}
	s.left--
	return nil
}
