//go:build linux

package install

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestUninstallLeavesNothingOfAnyInit(t *testing.T) {
	for _, init := range Inits() {
		t.Run(init, func(t *testing.T) {
			dir := tree(t)
			before := snapshot(t, dir)
			must(t, install(options(dir, init)))
			if installed := snapshot(t, dir); installed["/usr/bin/postern"] == "" || len(installed) < len(before)+10 {
				t.Fatalf("little was installed: %d paths, before %d", len(installed), len(before))
			}
			must(t, uninstall(options(dir, init), true))
			same(t, "after uninstall --purge", snapshot(t, dir), before)
		})
	}
}

func TestSecondInstallChangesNothing(t *testing.T) {
	for _, init := range Inits() {
		dir := tree(t)
		must(t, install(options(dir, init)))
		first := snapshot(t, dir)
		p, err := New(options(dir, init))
		must(t, err)
		if p.Changes() {
			t.Errorf("%s: the second run would change %v", init, p.Steps)
		}
		must(t, p.Apply(nil, func(Step) {}))
		same(t, init, snapshot(t, dir), first)
	}
}

func TestPlanningChangesNothing(t *testing.T) {
	dir := tree(t)
	before := snapshot(t, dir)
	_, err := New(options(dir, "systemd"))
	must(t, err)
	same(t, "after planning", snapshot(t, dir), before)
}

// TestRunStoppedAnywhereIsCompletedByTheNext stops ahead of each change in
// turn: a first installation, an upgrade to another init system and program,
// and both ways back.
func TestRunStoppedAnywhereIsCompletedByTheNext(t *testing.T) {
	upgraded := func(dir string) Options {
		o := options(dir, "runit")
		o.Binary, o.To = []byte("\x7fELF two"), "/usr/local/bin/postern"
		return o
	}
	for _, c := range []struct {
		name    string
		prepare func(dir string) error
		run     func(o Options) error
		options func(dir string) Options
	}{
		{"install", nil, install, func(dir string) Options { return options(dir, "systemd") }},
		{"install a line", nil, install, func(dir string) Options { return options(dir, "busybox") }},
		{"upgrade", func(dir string) error { return install(options(dir, "systemd")) }, install, upgraded},
		{"uninstall", func(dir string) error { return install(options(dir, "s6")) }, func(o Options) error { return uninstall(o, false) }, upgraded},
		{"purge", func(dir string) error { return install(options(dir, "inittab")) }, func(o Options) error { return uninstall(o, true) }, upgraded},
	} {
		t.Run(c.name, func(t *testing.T) {
			prepared := func() string {
				dir := tree(t)
				if c.prepare != nil {
					must(t, c.prepare(dir))
				}
				return dir
			}
			dir := prepared()
			must(t, c.run(c.options(dir)))
			want := snapshot(t, dir)
			stops := 0
			for ; ; stops++ {
				dir := prepared()
				o := c.options(dir)
				o.Before = (&stopper{left: stops}).before
				err := c.run(o)
				if err == nil {
					break // nothing was left to stop
				}
				if !errors.Is(err, errStopped) {
					t.Fatalf("stopped ahead of change %d: %v", stops, err)
				}
				if err := c.run(c.options(dir)); err != nil {
					t.Fatalf("after a stop ahead of change %d: %v", stops, err)
				}
				same(t, "after a stop", snapshot(t, dir), want)
				if t.Failed() {
					t.Fatalf("stopped ahead of change %d", stops)
				}
			}
			if stops < 15 {
				t.Errorf("only %d places to stop", stops)
			}
			t.Logf("stopped at %d places", stops)
		})
	}
}

// TestStoppedInstallCanBeTakenAway: the manifest is there before anything else.
func TestStoppedInstallCanBeTakenAway(t *testing.T) {
	for stops := 0; ; stops++ {
		dir := tree(t)
		before := snapshot(t, dir)
		o := options(dir, "systemd")
		o.Before = (&stopper{left: stops}).before
		if install(o) == nil {
			return
		}
		must(t, uninstall(options(dir, ""), true))
		after := snapshot(t, dir)
		for path := range after {
			if _, known := before[path]; !known {
				t.Fatalf("stopped ahead of change %d: %s was left", stops, path)
			}
		}
	}
}

func TestUpgradeReplacesTheProgramAndKeepsTheState(t *testing.T) {
	dir := tree(t)
	must(t, install(options(dir, "systemd")))
	put(t, dir, "var/lib/postern/identity.db", "keys")
	held, err := os.Open(filepath.Join(dir, "usr/bin/postern"))
	must(t, err)
	defer func() { _ = held.Close() }()
	o := options(dir, "systemd")
	o.Binary = []byte("\x7fELF two")
	must(t, install(o))
	old := make([]byte, 20)
	n, err := held.Read(old)
	if err != nil || string(old[:n]) != "\x7fELF one" {
		t.Errorf("the running program's file is %q now, %v: it was written over", old[:n], err)
	}
	seen := snapshot(t, dir)
	if !strings.HasSuffix(seen["/usr/bin/postern"], "two") || !strings.HasSuffix(seen["/var/lib/postern/identity.db"], "keys") {
		t.Errorf("after the upgrade: %q, %q", seen["/usr/bin/postern"], seen["/var/lib/postern/identity.db"])
	}
	must(t, uninstall(o, false))
	if seen = snapshot(t, dir); seen["/var/lib/postern/identity.db"] == "" || seen["/usr/bin/postern"] != "" {
		t.Error("uninstall took the identity, or left the program")
	}
	must(t, uninstall(o, true))
	if snapshot(t, dir)["/var/lib/postern"] != "" {
		t.Error("purge left the state directory")
	}
}

func TestEditedFileIsKeptAside(t *testing.T) {
	dir := tree(t)
	must(t, install(options(dir, "openrc")))
	put(t, dir, "etc/init.d/postern", "mine")
	must(t, install(options(dir, "openrc")))
	seen := snapshot(t, dir)
	if aside := seen["/etc/init.d/postern.edited"]; !strings.HasPrefix(aside, "-rw-r--r--") || !strings.HasSuffix(aside, " mine") {
		t.Errorf("the edited file is %q", aside)
	}
	if !strings.HasPrefix(seen["/etc/init.d/postern"], "-rwxr-xr-x") || strings.HasSuffix(seen["/etc/init.d/postern"], "mine") {
		t.Errorf("our file is %.40q", seen["/etc/init.d/postern"])
	}
	put(t, dir, "etc/init.d/postern", "mine again")
	must(t, install(options(dir, "openrc")))
	if aside := snapshot(t, dir)["/etc/init.d/postern.edited.2"]; !strings.HasSuffix(aside, " mine again") {
		t.Errorf("the second edited file is %q", aside)
	}
	put(t, dir, "etc/init.d/postern", "and again")
	p, err := Remove(options(dir, ""), false, PartAgent, PartDiscovery)
	must(t, err)
	i := slices.IndexFunc(p.Steps, func(s Step) bool { return s.Path == "/etc/init.d/postern" })
	if i < 0 || p.Steps[i].Do != DoKeep {
		t.Errorf("uninstall would do %v with an edited file", p.Steps[i])
	}
}

func TestDiscoveryGoesOnAndOffByItself(t *testing.T) {
	dir := tree(t)
	o := options(dir, "systemd")
	o.Parts = []string{PartAgent}
	must(t, install(o))
	off := snapshot(t, dir)
	if off["/opt/azcmagent/bin/himds"] != "" || off["/etc/profile.d/postern.sh"] != "" {
		t.Error("discovery is on although it was not asked for")
	}
	o.Parts = []string{PartDiscovery}
	must(t, install(o))
	on := snapshot(t, dir)
	for _, path := range append(Markers(), "/var/opt/azcmagent/tokens", "/etc/profile.d/postern.sh") {
		if on[path] == "" {
			t.Errorf("%s is missing", path)
		}
	}
	want := "[Manager]\nDefaultEnvironment=\"IDENTITY_ENDPOINT=http://localhost:40342/metadata/identity/oauth2/token\" \"IMDS_ENDPOINT=http://localhost:40342\"\n"
	if got := on["/usr/lib/systemd/system.conf.d/azcmagent.conf"]; !strings.HasSuffix(got, want) {
		t.Errorf("azcmagent.conf is %q", got)
	}
	p, err := Remove(o, false, PartDiscovery)
	must(t, err)
	must(t, p.Take(nil, func(Step) {}))
	same(t, "discovery off", snapshot(t, dir), off)
}

func TestAccountsAreAddedToTheFilesOfATree(t *testing.T) {
	dir := tree(t)
	must(t, install(options(dir, "busybox")))
	for path, line := range map[string]string{
		"etc/passwd": "postern:x:997:998:Postern managed identity agent:/nonexistent:/usr/sbin/nologin\n", "etc/group": "himds:x:998:\n",
		"etc/shadow": "postern:!*:::::::\n", "etc/gshadow": "himds:!::\n",
	} {
		content, err := os.ReadFile(filepath.Join(dir, path))
		must(t, err)
		if !strings.HasSuffix(string(content), "\n"+line) || !strings.HasPrefix(string(content), "root:") {
			t.Errorf("%s is %q", path, content)
		}
	}
	pinned := tree(t)
	o := options(pinned, "busybox")
	o.UID, o.GID = 942, 943
	must(t, install(o))
	content, err := os.ReadFile(filepath.Join(pinned, "etc/passwd"))
	must(t, err)
	if !strings.Contains(string(content), "\npostern:x:942:943:") {
		t.Errorf("pinned: %q", content)
	}
}
