package platformtest

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// Dir makes a directory whose parents a Host accepts, and removes it at the
// end. testing's TempDir will not do on Unix: it lies below /tmp, where anybody
// may write. POSTERN_TEST_DIR names another place for it, which must be owned
// by root or by the user of the test and closed to writing by others.
func Dir(t testing.TB) string {
	t.Helper()
	if runtime.GOOS == "windows" {
		return t.TempDir()
	}
	var candidates []string
	if d := os.Getenv("POSTERN_TEST_DIR"); d != "" {
		candidates = append(candidates, d)
	}
	if os.Geteuid() == 0 {
		candidates = append(candidates, "/var/lib") // other accounts can pass through it
	}
	if d, err := os.UserCacheDir(); err == nil {
		candidates = append(candidates, d)
	}
	for _, c := range candidates {
		real, err := filepath.EvalSymlinks(c)
		if err != nil || !closed(real) {
			continue
		}
		dir, err := os.MkdirTemp(real, "postern-test-")
		if err != nil {
			continue
		}
		t.Cleanup(func() {
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		})
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	t.Fatalf("no directory with safe parents among %q; set POSTERN_TEST_DIR", candidates)
	return ""
}

// closed reports whether nobody else can write to dir or a parent of it.
func closed(dir string) bool {
	for {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&0o022 != 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
		dir = filepath.Dir(dir)
	}
}
