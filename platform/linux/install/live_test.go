//go:build linux

package install

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// recorder is a system with some programs, which only notes what it is told.
func recorder(programs ...string) (Live, *[]string) {
	var said []string
	return Live{
		Running: true, Binary: "/usr/bin/postern", Service: "/etc/service",
		Run: func(_ context.Context, argv ...string) error {
			said = append(said, strings.Join(argv, " "))
			return nil
		},
		Has: func(program string) bool { return slices.Contains(programs, program) },
	}, &said
}

func TestAccountsAreMadeByTheSystemsOwnTool(t *testing.T) {
	for _, c := range []struct {
		programs []string
		uid, gid int
		want     string
	}{
		{[]string{"systemd-sysusers", "useradd", "groupadd"}, -1, -1, `systemd-sysusers --inline g himds -|systemd-sysusers --inline u postern -:himds "Postern managed identity agent" /nonexistent`},
		{[]string{"useradd", "groupadd", "adduser", "addgroup"}, 942, 943, "groupadd --system --gid 943 himds|useradd --system --no-create-home --home-dir /nonexistent --shell /bin/false --comment Postern managed identity agent --gid himds --uid 942 postern"},
		{[]string{"adduser", "addgroup"}, -1, -1, "addgroup -S himds|adduser -S -D -H -h /nonexistent -s /bin/false -g Postern managed identity agent -G himds postern"},
	} {
		l, said := recorder(c.programs...)
		must(t, l.AddAccount(t.Context(), GroupName, c.uid, c.gid))
		must(t, l.AddAccount(t.Context(), UserName, c.uid, c.gid))
		if got := strings.Join(*said, "|"); got != c.want {
			t.Errorf("with %v: %s\nwant %s", c.programs, got, c.want)
		}
	}
	l, _ := recorder()
	if err := l.AddAccount(t.Context(), UserName, -1, -1); !errors.Is(err, ErrNoTool) {
		t.Errorf("without a tool: %v", err)
	}
}

// TestUpgradeRestartsByTheInitsOwnWay: the first installation starts, a second
// one with another program restarts, one without a change does neither.
func TestUpgradeRestartsByTheInitsOwnWay(t *testing.T) {
	for _, c := range []struct{ init, upgrade, again string }{
		{"systemd", "systemctl daemon-reload|systemctl restart postern.service", "systemctl daemon-reload|systemctl start postern.socket postern-control.socket postern.service"},
		{"openrc", "rc-service postern restart", "rc-service postern start"},
		{"sysvinit", "/etc/init.d/postern restart", "/etc/init.d/postern start"},
		{"inittab", "telinit q", "telinit q"},
		{"busybox", "kill -HUP 1", "kill -HUP 1"},
		{"runit", "sv restart /etc/sv/postern", ""},
		{"s6", "s6-svscanctl -a /etc/s6/service|s6-svc -r /etc/s6/service/postern", "s6-svscanctl -a /etc/s6/service"},
	} {
		dir := tree(t)
		commands := func(o Options) string {
			p, err := New(o)
			must(t, err)
			l, _ := recorder()
			l.Init, l.Service = c.init, p.Service()
			if ends := l.Restarts(p); ends != (string(o.Binary) != "\x7fELF one" && (c.init == "inittab" || c.init == "busybox")) {
				t.Errorf("%s: the running agent is ended: %v", c.init, ends)
			}
			var lines []string
			for _, argv := range l.Start(p) {
				lines = append(lines, strings.Join(argv, " "))
			}
			must(t, p.Apply(nil, func(Step) {}))
			return strings.Join(lines, "|")
		}
		o := options(dir, c.init)
		first := commands(o)
		if c.init == "systemd" && !strings.HasSuffix(first, "systemctl restart postern.socket postern-control.socket|systemctl restart postern.service") {
			t.Errorf("first: %s", first)
		}
		if c.init == "s6" && first != "rm -rf /run/s6.postern /run/s6.postern-event|s6-svscanctl -a /etc/s6/service" {
			t.Errorf("first: %s", first)
		}
		if got := commands(o); got != c.again {
			t.Errorf("%s, again: %q, want %q", c.init, got, c.again)
		}
		o.Binary = []byte("\x7fELF two")
		if got := commands(o); got != c.upgrade {
			t.Errorf("%s, upgrade: %q, want %q", c.init, got, c.upgrade)
		}
	}
}

// TestAgentSeesWhereItsTokensAre: it looks for them once, when it starts.
func TestAgentSeesWhereItsTokensAre(t *testing.T) {
	dir := tree(t)
	must(t, install(options(dir, "systemd")))
	l, said := recorder()
	l.Init = "systemd"
	o := options(dir, "systemd")
	o.Mount = true
	p, err := New(o)
	must(t, err)
	must(t, l.Do(t.Context(), l.Start(p), func(Step) {}))
	o.Parts = []string{PartDiscovery}
	p, err = New(o)
	must(t, err)
	must(t, l.Do(t.Context(), l.Remount(p), func(Step) {}))
	must(t, p.Apply(nil, func(Step) {}))
	p, err = Remove(options(dir, ""), false, PartDiscovery)
	must(t, err)
	before, after := l.Unmount(t.Context(), p)
	must(t, l.Do(t.Context(), append(before, after...), func(Step) {}))
	const units = "postern.socket postern-control.socket postern.service"
	want := []string{
		"systemctl daemon-reload", "systemctl restart postern.service",
		"systemctl daemon-reload", "systemctl try-restart postern.service",
		"systemctl is-active --quiet postern.service", "systemctl stop " + units + " var-opt-azcmagent-tokens.mount", "systemctl daemon-reload", "systemctl start " + units,
	}
	if !slices.Equal(*said, want) {
		t.Errorf("said %q, want %q", *said, want)
	}
}

func TestNothingIsStartedWhereTheInitDoesNotRun(t *testing.T) {
	dir := tree(t)
	p, err := New(options(dir, "systemd"))
	must(t, err)
	l := Live{Init: "systemd"}
	if len(l.Start(p)) > 0 || len(l.Stop(p)) > 0 || len(l.Forget()) > 0 {
		t.Error("commands for an init system that does not run")
	}
}

// TestStoppingTakesAllUnits: the next request on a socket would start the
// service again.
func TestStoppingTakesAllUnits(t *testing.T) {
	dir := tree(t)
	must(t, install(options(dir, "systemd")))
	p, err := Remove(options(dir, ""), false, PartAgent, PartDiscovery)
	must(t, err)
	l, said := recorder()
	l.Init = "systemd"
	must(t, l.Do(t.Context(), l.Stop(p), func(Step) {}))
	want := []string{
		"systemctl disable postern-connect.service postern-imds.socket",
		"systemctl stop postern-connect.service postern.socket postern-control.socket postern-imds.socket postern-imds.service postern.service",
	}
	if !slices.Equal(*said, want) {
		t.Errorf("stop: %q", *said)
	}
}

// TestReadOnlyUsrSendsFilesToEtc needs a mount of its own, hence root.
func TestReadOnlyUsrSendsFilesToEtc(t *testing.T) {
	if os.Getenv("POSTERN_TEST_TREE") != "" {
		o := options(os.Getenv("POSTERN_TEST_TREE"), "systemd")
		var refusal *Refusal
		if err := install(o); !errors.As(err, &refusal) || !strings.Contains(refusal.Fix, "--to") {
			t.Errorf("a program into a /usr that cannot be written: %v", err)
		}
		o.To = "/opt/postern/postern"
		must(t, install(o))
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("not run: a mount needs root")
	}
	dir := tree(t)
	readOnly(t, dir)
	seen := snapshot(t, dir)
	for _, path := range []string{"/etc/systemd/system/postern.service", "/etc/systemd/system.conf.d/azcmagent.conf", "/etc/sysusers.d/postern.conf", "/etc/postern/manifest.json", "/opt/postern/postern"} {
		if seen[path] == "" {
			t.Errorf("%s is missing", path)
		}
	}
	must(t, uninstall(options(dir, ""), true))
}

// readOnly plays the test once more where /usr of the tree cannot be written.
func readOnly(t *testing.T, dir string) {
	t.Helper()
	cmd := exec.Command("unshare", "-m", "sh", "-c", `mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "$0" -test.run "^$2\$" -test.v`,
		os.Args[0], filepath.Join(dir, "usr"), t.Name())
	cmd.Env = append(os.Environ(), "POSTERN_TEST_TREE="+dir)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestImageThatCannotBeWrittenAnyMoreIsSeenAsItWasMade: its files lie in /usr,
// where they were put when it could be; nothing is missing and nothing to be
// done, and what would have to be done is refused before anything is changed.
func TestImageThatCannotBeWrittenAnyMoreIsSeenAsItWasMade(t *testing.T) {
	if dir := os.Getenv("POSTERN_TEST_TREE"); dir != "" {
		o := options(dir, "systemd")
		p, err := New(o)
		must(t, err)
		if p.Changes() {
			t.Errorf("would change %v", p.Steps)
		}
		before := snapshot(t, dir)
		must(t, os.Remove(filepath.Join(dir, "opt/azcmagent/bin/himds")))
		var refusal *Refusal
		if _, err := New(o); !errors.As(err, &refusal) || refusal.Path != "/usr/lib/postern/manifest.json" {
			t.Errorf("a marker that is gone: %v", err)
		}
		if p, err = Look(o); err != nil || !p.touches("/opt/azcmagent/bin/himds") || p.touches("/etc/systemd/system/postern.service") {
			t.Errorf("looked at: %v, %v", p.Steps, err)
		}
		must(t, os.Symlink(o.To, filepath.Join(dir, "opt/azcmagent/bin/himds")))
		same(t, "after looking", snapshot(t, dir), before)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("not run: a mount needs root")
	}
	dir := tree(t)
	must(t, install(options(dir, "systemd")))
	readOnly(t, dir)
}
