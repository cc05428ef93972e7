//go:build linux

package install

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestLinkThroughItsOwnDirectoryIsFollowed: "./x" leads where "x" does.
func TestLinkThroughItsOwnDirectoryIsFollowed(t *testing.T) {
	dir := tree(t)
	must(t, os.MkdirAll(filepath.Join(dir, "var/opt"), 0o755))
	must(t, os.Symlink("./var/./opt", filepath.Join(dir, "opt")))
	must(t, install(options(dir, "systemd")))
	if !strings.Contains(snapshot(t, dir)["/var/opt/azcmagent/bin/himds"], "-> /usr/bin/postern") {
		t.Error("the marker is not where the link of the tree leads")
	}
}

// TestPathsThatAreNoneAreRefused: they go into scripts and units as they are,
// and the search for their parents has to end.
func TestPathsThatAreNoneAreRefused(t *testing.T) {
	for _, bad := range []string{"postern", "./postern", "/usr/../bin/postern", "/usr/bin/", "/opt/my dir/postern", "/opt/a;b", "/opt/$x/postern", "/opt/%n/postern", "/"} {
		dir := tree(t)
		before := snapshot(t, dir)
		o := options(dir, "sysvinit")
		o.To = bad
		if err := install(o); err == nil || !strings.Contains(err.Error(), "cannot be the path") {
			t.Errorf("program at %q: err = %v", bad, err)
		}
		o = options(dir, "runit")
		o.Service = bad
		if err := install(o); err == nil || !strings.Contains(err.Error(), "cannot be the path") {
			t.Errorf("services in %q: err = %v", bad, err)
		}
		same(t, bad, snapshot(t, dir), before)
	}
}

// TestLineOfAnotherUnderOurMarkStays: who takes our line away by hand may leave
// the comment above it, and init needs what follows.
func TestLineOfAnotherUnderOurMarkStays(t *testing.T) {
	const next = "::shutdown:/bin/umount -a -r"
	for name, change := range map[string]func(o Options) error{
		"uninstall": func(o Options) error { return uninstall(o, true) },
		"upgrade":   func(o Options) error { o.To = "/usr/local/bin/postern"; return install(o) },
	} {
		dir := tree(t)
		must(t, install(options(dir, "busybox")))
		put(t, dir, "etc/inittab", "::sysinit:/etc/rcS\n"+lineMark+"\n"+next+"\n")
		must(t, change(options(dir, "busybox")))
		content, err := os.ReadFile(filepath.Join(dir, "etc/inittab"))
		must(t, err)
		if !strings.Contains(string(content), next+"\n") {
			t.Errorf("%s took another's line: %q", name, content)
		}
		if lines := strings.Count(string(content), lineMark); lines != map[string]int{"uninstall": 0, "upgrade": 1}[name] {
			t.Errorf("%s leaves %d marks: %q", name, lines, content)
		}
	}
}

// TestAliasDoesNotHideAnotherAgentsUnit: a link in /etc goes before a unit in
// /usr/lib, and the vendor's agent would not start again.
func TestAliasDoesNotHideAnotherAgentsUnit(t *testing.T) {
	for _, place := range []string{"usr/lib/systemd/system/himdsd.service", "etc/systemd/system/himdsd.service"} {
		dir := tree(t)
		put(t, dir, place, "[Unit]\nDescription=the vendor's\n")
		o := options(dir, "systemd")
		o.Parts = []string{PartAgent}
		before := snapshot(t, dir)
		err := install(o)
		if err == nil || !strings.Contains(err.Error(), "himdsd.service is a file of") {
			t.Errorf("beside %s: err = %v", place, err)
		}
		same(t, place, snapshot(t, dir), before)
	}
}

// TestMountedTokensAreLeftToTheMount: when the agent runs, the directory is its
// own, on a tmpfs; the next install has nothing to do there.
func TestMountedTokensAreLeftToTheMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not run: giving directories away needs root")
	}
	dir := tree(t)
	o := options(dir, "systemd")
	o.Mount = true
	must(t, install(o))
	tokens := filepath.Join(dir, "var/opt/azcmagent/tokens")
	must(t, os.Chown(tokens, 997, 998)) // as the mount has it
	must(t, os.Chmod(tokens, 0o750))
	must(t, install(o))
	must(t, os.Chown(tokens, 1001, 1001))
	if err := install(o); err == nil || !strings.Contains(err.Error(), "tokens is a directory of uid 1001") {
		t.Errorf("a stranger's: err = %v", err)
	}
}

// TestMountTakesThePlaceOfOurLink: who has containers later need not begin anew.
func TestMountTakesThePlaceOfOurLink(t *testing.T) {
	dir := tree(t)
	before := snapshot(t, dir)
	must(t, install(options(dir, "systemd")))
	o := options(dir, "systemd")
	o.Mount = true
	for left := 0; ; left++ { // stopped ahead of each change
		o.Before = (&stopper{left}).before
		if install(o) == nil {
			break
		}
	}
	o.Before = nil
	p, err := New(o)
	must(t, err)
	if p.Changes() {
		t.Errorf("it is not at rest: %v", p.Steps)
	}
	seen := snapshot(t, dir)
	if !strings.HasPrefix(seen[tokensPath], "drwxr-xr-x") || !strings.Contains(seen["/usr/lib/systemd/system/"+mountDropIn], "ReadWritePaths="+tokensPath) {
		t.Errorf("the tokens are %q, the drop-in %q", seen[tokensPath], seen["/usr/lib/systemd/system/"+mountDropIn])
	}
	var refusal *Refusal
	if _, err := New(options(dir, "systemd")); !errors.As(err, &refusal) || !strings.Contains(refusal.Fix, "discovery off") {
		t.Errorf("a link in place of a mount that is in use: %v", err)
	}
	must(t, uninstall(options(dir, ""), true))
	same(t, "after uninstall --purge", snapshot(t, dir), before)
}

// TestUninstallTakesTheMountAway: a mounted directory cannot be removed.
func TestUninstallTakesTheMountAway(t *testing.T) {
	for _, mounted := range []bool{false, true} {
		dir := tree(t)
		o := options(dir, "systemd")
		o.Mount = mounted
		must(t, install(o))
		p, err := Remove(options(dir, ""), false, PartAgent, PartDiscovery)
		must(t, err)
		l, _ := recorder()
		l.Init = "systemd"
		stop := l.Stop(p)
		if slices.Contains(stop[len(stop)-1], mountUnit) != mounted {
			t.Errorf("mounted %v: %v", mounted, stop)
		}
	}
}

// TestWhatIsGoneIsNotStopped: after an uninstall that a power cut stopped, the
// init system knows no service of ours, and its tools would fail for ever.
func TestWhatIsGoneIsNotStopped(t *testing.T) {
	for _, init := range Inits() {
		dir := tree(t)
		o := options(dir, init)
		must(t, install(o))
		m, err := Installed(dir)
		must(t, err)
		l, _ := recorder()
		l.Init, l.Service = init, m.Service
		p, err := Remove(o, false, PartAgent, PartDiscovery)
		must(t, err)
		if inittab := init == "inittab" || init == "busybox"; len(l.Stop(p)) == 0 && !inittab {
			t.Errorf("%s: nothing stops the agent", init)
		}
		must(t, p.Take(nil, func(Step) {}))
		if stop := l.Stop(p); len(stop) > 0 {
			t.Errorf("%s: %v, and nothing is there", init, stop)
		}
	}
}

// TestSystemsProgramsGoBeforeThoseOfPATH: su leaves PATH as the user had it.
func TestSystemsProgramsGoBeforeThoseOfPATH(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"sh", "postern-only-here"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), 0o755))
	}
	t.Setenv("PATH", dir)
	if path, err := find("sh"); err != nil || strings.HasPrefix(path, dir) {
		t.Errorf("sh is %s, %v", path, err)
	}
	if path, err := find("postern-only-here"); err != nil || !strings.HasPrefix(path, dir) {
		t.Errorf("a program of PATH alone is %s, %v", path, err)
	}
	l := Live{}
	if !l.has("sh") || l.has("postern-nowhere") {
		t.Error("has does not look where run does")
	}
	must(t, l.run(t.Context(), "sh", "-c", `case $PATH in /usr/sbin:*) ls / >&2;; *) exit 1;; esac`))
	if err := l.run(t.Context(), "postern-nowhere"); err == nil {
		t.Error("a program that is not there was run")
	}
}

// TestAccountThatIsGoneIsNoReasonToStop: a run was stopped behind userdel, or
// somebody was faster.
func TestAccountThatIsGoneIsNoReasonToStop(t *testing.T) {
	dir := tree(t)
	must(t, install(options(dir, "busybox")))
	put(t, dir, "etc/passwd", "root:x:0:0::/root:/bin/sh\n")
	p, err := Remove(options(dir, ""), true, PartAgent, PartDiscovery)
	must(t, err)
	var asked []string
	must(t, p.Take(func(name string) error { asked = append(asked, name); return nil }, func(Step) {}))
	if got := strings.Join(asked, " "); got != GroupName {
		t.Errorf("the tool was asked to remove %q, want the group alone", got)
	}
}

// TestLocateStaysInTheTree: what an image's links lead to on this system is not
// the image's.
func TestLocateStaysInTheTree(t *testing.T) {
	dir := tree(t)
	put(t, dir, "data/x/file", "of the tree")
	for link, target := range map[string]string{
		"absolute": "/data/x/file", "up": "../../../../../../data/x/file", "folder": "/data/x", "round": "round", "host": "/proc/self/status", "odd": "folder/../x/file",
	} {
		must(t, os.Symlink(target, filepath.Join(dir, link)))
	}
	for _, path := range []string{"/data/x/file", "/absolute", "/up", "/folder/file", "/folder/../x/file", "/odd"} {
		at, err := Locate(dir, path)
		if err != nil || at != filepath.Join(dir, "data/x/file") {
			t.Errorf("%s is at %q, %v", path, at, err)
		}
	}
	for _, path := range []string{"/round", "/none/file"} {
		if at, err := Locate(dir, path); err == nil {
			t.Errorf("%s is at %q", path, at)
		}
	}
	if at, err := Locate(dir, "/host"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("/host is at %q, %v: not in the tree", at, err)
	}
}

// TestPurgeDestroysTheKeyFirst: overwritten, before anything else goes, and not
// under an agent that would write it anew.
func TestPurgeDestroysTheKeyFirst(t *testing.T) {
	dir := tree(t)
	must(t, install(options(dir, "busybox")))
	for _, name := range []string{"identity.db", "kek", "a-note"} {
		put(t, dir, "var/lib/postern/"+name, "of "+name)
	}
	key, err := os.Open(filepath.Join(dir, "var/lib/postern/kek"))
	must(t, err)
	defer func() { _ = key.Close() }()
	db, err := os.Open(filepath.Join(dir, "var/lib/postern/identity.db"))
	must(t, err)
	must(t, syscall.Flock(int(db.Fd()), syscall.LOCK_EX))
	if err := uninstall(options(dir, ""), true); !errors.Is(err, ErrInUse) {
		t.Errorf("while an agent runs: %v", err)
	}
	if snapshot(t, dir)["/var/lib/postern/kek"] == "" {
		t.Error("the key of an agent that runs is gone")
	}
	must(t, db.Close())
	must(t, uninstall(options(dir, ""), true))
	content, err := io.ReadAll(key)
	if err != nil || string(content) != strings.Repeat("\x00", len("of kek")) {
		t.Errorf("the key's cells hold %q, %v", content, err)
	}
	if snapshot(t, dir)["/var/lib/postern"] != "" {
		t.Error("the state directory is left")
	}
}
