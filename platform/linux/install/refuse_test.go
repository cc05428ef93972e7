//go:build linux

package install

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNothingIsChangedWhereSomethingIsForeign: each refusal names the path, the
// tree stays as it was, and the same tree without the foreign thing installs.
func TestNothingIsChangedWhereSomethingIsForeign(t *testing.T) {
	link := func(target, path string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755))
			must(t, os.Symlink(target, filepath.Join(dir, path)))
		}
	}
	file := func(path, text string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { put(t, dir, path, text) }
	}
	folder := func(path string, mode os.FileMode) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			must(t, os.MkdirAll(filepath.Join(dir, path), 0o755))
			must(t, os.Chmod(filepath.Join(dir, path), mode))
		}
	}
	for _, c := range []struct {
		name, path, says string
		before           func(*testing.T, string)
	}{
		{"a marker of another agent", "/opt/azcmagent/bin/himds", "is a file of", file("opt/azcmagent/bin/himds", "the vendor's")},
		{"a marker that leads elsewhere", "/opt/azcmagent/bin/himds", "leads to /opt/other/himds", link("/opt/other/himds", "opt/azcmagent/bin/himds")},
		{"another program", "/usr/bin/postern", "its content is not ours", file("usr/bin/postern", "mail")},
		{"a link where the program goes", "/usr/bin/postern", "is a symbolic link", link("/etc/passwd", "usr/bin/postern")},
		{"a directory where the program goes", "/usr/bin/postern", "is a directory", folder("usr/bin/postern", 0o755)},
		{"another unit", "/usr/lib/systemd/system/postern.service", "its content is not ours", file("usr/lib/systemd/system/postern.service", "[Unit]\n")},
		{"a linked unit", "/usr/lib/systemd/system/postern.socket", "is a symbolic link", link("/dev/null", "usr/lib/systemd/system/postern.socket")},
		{"another alias", "/etc/systemd/system/himdsd.service", "leads to", link("/lib/systemd/system/himdsd.service", "etc/systemd/system/himdsd.service")},
		{"variables of another agent", "/usr/lib/systemd/system.conf.d/azcmagent.conf", "its content", file("usr/lib/systemd/system.conf.d/azcmagent.conf", "[Manager]\n")},
		{"a directory that others write", "/opt/azcmagent", "can be written by others", folder("opt/azcmagent", 0o777)},
		{"a sticky directory that others write", "/opt/azcmagent", "can be written by others", folder("opt/azcmagent", 0o777|os.ModeSticky)},
		{"a group that writes", "/usr/bin", "can be written by others", folder("usr/bin", 0o775)},
		{"a file for a directory", "/etc/postern", "is no directory", file("etc/postern", "")},
		{"a link for the state", "/var/lib/postern", "is a symbolic link", link("/etc", "var/lib/postern")},
		{"tokens that are a directory", "/var/opt/azcmagent/tokens", "is a directory of", folder("var/opt/azcmagent/tokens", 0o755)},
		{"tokens that lead elsewhere", "/var/opt/azcmagent/tokens", "leads to /tmp/x", link("/tmp/x", "var/opt/azcmagent/tokens")},
		{"an agent that is root", "/etc/passwd", "must not be root", file("etc/passwd", "root:x:0:0::/:/bin/sh\npostern:x:0:0::/:/bin/sh\n")},
		{"a manifest that others write", "/usr/lib/postern/manifest.json", "only root can write", func(t *testing.T, dir string) {
			put(t, dir, "usr/lib/postern/manifest.json", `{"schema":"postern.manifest/1","entries":[]}`)
			must(t, os.Chmod(filepath.Join(dir, "usr/lib/postern/manifest.json"), 0o666))
		}},
		{"a manifest that is none", "/usr/lib/postern/manifest.json", "cannot be read", file("usr/lib/postern/manifest.json", "{}")},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := tree(t)
			c.before(t, dir)
			before := snapshot(t, dir)
			err := install(options(dir, "systemd"))
			var refusal *Refusal
			if !errors.As(err, &refusal) || !strings.Contains(err.Error(), c.path) || !strings.Contains(err.Error(), c.says) || refusal.Fix == "" {
				t.Errorf("err = %v, want a refusal of %s that says %q, with a fix", err, c.path, c.says)
			}
			same(t, "after the refusal", snapshot(t, dir), before)
		})
	}
}

// TestStrangersCannotChooseWhereRootWrites needs a second account's files.
func TestStrangersCannotChooseWhereRootWrites(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not run: making files of another account needs root")
	}
	const eve = 1001
	for _, c := range []struct {
		name, path, says string
		before           func(*testing.T, string)
	}{
		{"a directory", "/opt/azcmagent", "is a directory of uid 1001", func(t *testing.T, dir string) {
			must(t, os.MkdirAll(filepath.Join(dir, "opt/azcmagent"), 0o755))
			must(t, os.Chown(filepath.Join(dir, "opt/azcmagent"), eve, eve))
		}},
		{"a link on the way", "/opt", "is a symbolic link of uid 1001", func(t *testing.T, dir string) {
			must(t, os.Symlink("etc", filepath.Join(dir, "opt")))
			must(t, os.Lchown(filepath.Join(dir, "opt"), eve, eve))
		}},
		{"the state", "/var/lib/postern", "belongs to eve (uid 1001)", func(t *testing.T, dir string) {
			must(t, os.Mkdir(filepath.Join(dir, "var/lib/postern"), 0o700))
			must(t, os.Chown(filepath.Join(dir, "var/lib/postern"), eve, eve))
		}},
		{"state that root left", "/var/lib/postern", "is root's and holds kek", func(t *testing.T, dir string) {
			put(t, dir, "var/lib/postern/kek", "planted")
		}},
		{"a file with our content", "/usr/bin/postern", "is a file of eve (uid 1001)", func(t *testing.T, dir string) {
			put(t, dir, "usr/bin/postern", "\x7fELF one")
			must(t, os.Chown(filepath.Join(dir, "usr/bin/postern"), eve, eve))
		}},
		{"the inittab", "/etc/inittab", "is a file of eve", func(t *testing.T, dir string) {
			must(t, os.Chown(filepath.Join(dir, "etc/inittab"), eve, eve))
		}},
		{"a manifest", "/usr/lib/postern", "is a directory of uid 1001", func(t *testing.T, dir string) {
			put(t, dir, "usr/lib/postern/manifest.json", `{"schema":"postern.manifest/1","entries":[{"part":"agent","kind":"file","path":"/etc/passwd"}]}`)
			must(t, os.Chown(filepath.Join(dir, "usr/lib/postern"), eve, eve))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := tree(t)
			c.before(t, dir)
			before := snapshot(t, dir)
			err := install(options(dir, "busybox"))
			if err == nil || !strings.Contains(err.Error(), c.path) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("err = %v, want a refusal of %s that says %q", err, c.path, c.says)
			}
			same(t, "after the refusal", snapshot(t, dir), before)
		})
	}
}

func TestLinksOfRootAreFollowedInsideTheTree(t *testing.T) {
	dir := tree(t)
	must(t, os.MkdirAll(filepath.Join(dir, "var/opt"), 0o755))
	must(t, os.Symlink("/var/opt", filepath.Join(dir, "opt")))
	must(t, os.Symlink("../../../../../../usr/lib", filepath.Join(dir, "lib")))
	must(t, install(options(dir, "systemd")))
	seen := snapshot(t, dir)
	if !strings.Contains(seen["/var/opt/azcmagent/bin/himds"], "-> /usr/bin/postern") {
		t.Error("the marker is not where the link of the tree leads")
	}
}

func TestEmptyMountPointIsGivenToTheAgent(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not run: giving directories away needs root")
	}
	dir := tree(t)
	must(t, os.MkdirAll(filepath.Join(dir, "var/lib/postern/lost+found"), 0o755))
	must(t, install(options(dir, "busybox")))
	if got := snapshot(t, dir)["/var/lib/postern"]; got != "drwx------ 997:998" {
		t.Errorf("the state directory is %q", got)
	}
}

func TestForeignFileIsNamedWithItsPackage(t *testing.T) {
	dir := tree(t)
	put(t, dir, "var/lib/dpkg/info/azcmagent.list", "/.\n/opt/azcmagent/bin/himds\n")
	put(t, dir, "opt/azcmagent/bin/himds", "the vendor's")
	err := install(options(dir, "systemd"))
	if err == nil || !strings.Contains(err.Error(), "package azcmagent") {
		t.Errorf("err = %v", err)
	}
}

// TestOurOwnPathsAreNotFollowedElsewhere: what was ours and is something else
// now is another's.
func TestOurOwnPathsAreNotFollowedElsewhere(t *testing.T) {
	for _, c := range []struct{ path, want string }{{"usr/bin/postern", "is a symbolic link of"}, {"opt/azcmagent/bin/himds", "is a file of"}} {
		dir := tree(t)
		must(t, install(options(dir, "systemd")))
		path := filepath.Join(dir, c.path)
		must(t, os.Remove(path))
		if c.path == "usr/bin/postern" {
			must(t, os.Symlink("/etc/passwd", path))
		} else {
			put(t, dir, c.path, "")
		}
		before := snapshot(t, dir)
		o := options(dir, "systemd")
		o.Binary = []byte("\x7fELF two")
		if err := install(o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: err = %v", c.path, err)
		}
		same(t, "after the refusal", snapshot(t, dir), before)
	}
}
