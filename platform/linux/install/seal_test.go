//go:build linux

package install

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func enrolled(t *testing.T) string {
	t.Helper()
	dir := tree(t)
	for _, name := range []string{"kek", "kek.lock", "identity.db", "identity.db.bak", "identity.json", "cache.db", "workloads.json"} {
		put(t, dir, "var/lib/postern/"+name, "of "+name)
	}
	put(t, dir, "etc/postern/claim", "secret")
	put(t, dir, "etc/postern/postern.toml", "")
	return dir
}

// TestSealStoppedAnywhereLeavesNoUsableIdentity: the key is the first to go.
func TestSealStoppedAnywhereLeavesNoUsableIdentity(t *testing.T) {
	for stops := 0; ; stops++ {
		dir := enrolled(t)
		_, err := Seal(dir, "/var/lib/postern", false, (&stopper{left: stops}).before)
		if err == nil {
			if stops < 8 {
				t.Errorf("only %d things were removed", stops)
			}
			return
		}
		seen := snapshot(t, dir)
		if stops > 0 && seen["/var/lib/postern/kek"] != "" {
			t.Fatalf("stopped ahead of removal %d: the key is there", stops)
		}
		if _, err := Seal(dir, "/var/lib/postern", false, nil); err != nil {
			t.Fatal(err)
		}
		for path := range snapshot(t, dir) {
			if strings.HasPrefix(path, "/var/lib/postern/") || path == "/etc/postern/claim" {
				t.Errorf("stopped ahead of removal %d and completed: %s is left", stops, path)
			}
		}
		if snapshot(t, dir)["/etc/postern/postern.toml"] == "" {
			t.Error("the configuration went, too")
		}
	}
}

func TestSealRefusesWhatAnAgentHasOpen(t *testing.T) {
	dir := enrolled(t)
	f, err := os.Open(filepath.Join(dir, "var/lib/postern/cache.db"))
	must(t, err)
	defer func() { _ = f.Close() }()
	must(t, syscall.Flock(int(f.Fd()), syscall.LOCK_EX))
	before := snapshot(t, dir)
	if _, err := Seal(dir, "/var/lib/postern", false, nil); !errors.Is(err, ErrInUse) {
		t.Errorf("err = %v, want ErrInUse", err)
	}
	same(t, "after the refusal", snapshot(t, dir), before)
}

// TestSealFollowsNoLinkOfTheAgent: its account could have made one.
func TestSealFollowsNoLinkOfTheAgent(t *testing.T) {
	dir := enrolled(t)
	put(t, dir, "etc/precious", "keep me")
	kek := filepath.Join(dir, "var/lib/postern/kek")
	must(t, os.Remove(kek))
	must(t, os.Symlink("../../../etc/precious", kek))
	_, err := Seal(dir, "/var/lib/postern", false, nil)
	must(t, err)
	if got := snapshot(t, dir)["/etc/precious"]; !strings.HasSuffix(got, "keep me") {
		t.Errorf("the link's target is %q", got)
	}
	if _, err := os.Lstat(kek); !errors.Is(err, os.ErrNotExist) {
		t.Error("the link is left")
	}
}

// TestSealNamesTheKeysOfAnAuthority: they are no device's, but an image with
// them makes every copy an authority.
func TestSealNamesTheKeysOfAnAuthority(t *testing.T) {
	dir := enrolled(t)
	put(t, dir, "var/lib/postern-authority/site.db", "keys")
	steps, err := Seal(dir, "/var/lib/postern", false, nil)
	must(t, err)
	if last := steps[len(steps)-1]; last.Path != "/var/lib/postern-authority" || last.Do != DoKeep || !strings.Contains(last.Note, "site authority") {
		t.Errorf("the last step is %+v", last)
	}
	if snapshot(t, dir)["/var/lib/postern-authority/site.db"] == "" {
		t.Error("it was removed")
	}
}
