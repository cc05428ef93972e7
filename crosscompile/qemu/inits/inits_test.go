//go:build linux

package inits

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/crosscompile/qemu"
	"postern/crosscompile/qemu/port"
)

var _ = qemu.Flag()

// boot is one start of the machine and the steps that it must report.
type boot struct {
	name  string // on the kernel's command line
	rtc   string
	steps []string
}

// boots are the life of a board, in order: flashed and connected; switched off
// and on without a network; with an empty battery; and well again.
func boots(systemd bool) []boot {
	first := []string{
		"clock", "start", "process", "places", "unenrolled", "authority", "connect", "places-connected", "token", "refused", "saved",
		"killed", "reload-bad", "reload", "memory", "authority-gone",
	}
	if systemd {
		first = append(first, "notify", "journal", "exposure", "activation", "metadata", "mounted", "watchdog")
	}
	return []boot{
		{name: "first", steps: first},
		{name: "offline", steps: []string{"clock", "start", "process", "identity", "token", "refused", "killed", "token-again", "memory"}},
		{name: "past", rtc: "1970-01-01T00:00:00", steps: []string{"clock", "start", "untrusted", "identity", "held-back", "killed", "identity-again", "memory"}},
		{name: "again", steps: []string{
			"clock", "start", "identity", "token", "stop", "store", "second-start", "token-again", "memory",
			"install-again", "uninstall", "found", "install", "token-installed",
		}},
	}
}

// limit bounds one boot; an idle host needs a tenth of it.
const limit = 8 * time.Minute

func tools(t *testing.T) {
	t.Helper()
	qemu.Tools(t, "mmdebstrap", "mke2fs", "e2fsck", "debugfs", "cp", "apt-get", "dpkg-deb", "depmod", "modprobe", "qemu-system-aarch64", "qemu-system-x86_64")
	qemu.NeedRoot(t, "the packages of a board are unpacked with their owners")
}

// machine makes the machine of one boot.
func machine(t *testing.T, arch string, s system, b boot, image string) qemu.Spec {
	t.Helper()
	kernel, err := qemu.FetchKernel(t.Context(), "cloud-"+arch)
	if err != nil {
		t.Fatal(err)
	}
	job := qemu.Job{
		ID: fmt.Sprintf("%s-%s-%s", s.name, arch, b.name), Mode: "switch",
		Root: &qemu.Mount{Device: "/dev/vda", Type: "ext4"}, Init: s.init,
	}
	spec := qemu.Spec{
		Arch: arch, MemMB: s.memMB, Kernel: kernel.Image, Initrd: filepath.Join(t.TempDir(), "initrd"), Job: job.ID, RTC: b.rtc,
		Append: fmt.Sprintf("cma=0 postern.boot=%s postern.now=%d", b.name, time.Now().Unix()),
		Disks:  []qemu.Disk{{File: image}},
	}
	if err := qemu.Initrd(t.Context(), kernel, arch, spec.Initrd, job, &qemu.Archive{}, "inet_diag", "tcp_diag", "unix_diag"); err != nil {
		t.Fatal(err)
	}
	return spec
}

// play boots once and awaits the steps. A console of a boot that failed is kept.
func play(t *testing.T, arch string, s system, b boot, image string) map[string]qemu.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	began := time.Now()
	vm, err := qemu.Start(ctx, machine(t, arch, s, b, image))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = vm.Close() }()
	got := vm.Steps(t, b.steps, limit)
	exit, err := vm.Result(ctx)
	if err != nil || exit.RC != 0 {
		t.Errorf("the boot ended with %d: %v", exit.RC, err)
	}
	if t.Failed() {
		keep(t, vm.Console())
	}
	t.Logf("%s: %.1f s, agent answered at %.1f guest s, peak %s", b.name, time.Since(began).Seconds(), got["start"].Up, got["memory"].Got)
	return got
}

// keep copies the console to a place that outlives the test.
func keep(t *testing.T, console string) {
	t.Helper()
	content, err := os.ReadFile(console)
	if err != nil {
		t.Log(err)
		return
	}
	f, err := os.CreateTemp("", "postern-console-*.log") //nolint:usetesting // it outlives the test
	if err != nil {
		t.Log(err)
		return
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Write(content); err != nil {
		t.Log(err)
		return
	}
	t.Logf("the console is kept in %s", f.Name())
}

// life plays all boots of one board.
func life(t *testing.T, tier, arch, name string) {
	t.Helper()
	qemu.Need(t, tier)
	tools(t)
	s := systems()[name]
	image := buildRoot(t, arch, s, nil)
	for _, b := range boots(s.plan.Systemd) {
		if !t.Run(b.name, func(t *testing.T) { play(t, arch, s, b, image) }) {
			t.FailNow()
		}
	}
	if len(s.plan.Off) > 0 {
		left(t, s, image)
	}
}

// left looks at the disk that the init left when it powered the machine off.
func left(t *testing.T, s system, image string) {
	t.Helper()
	ctx := t.Context()
	head, err := command(ctx, "debugfs", "-R", "stats -h", image)
	if err != nil {
		t.Fatal(err)
	}
	if s.plan.Systemd && strings.Contains(head, "needs_recovery") {
		t.Error("systemd has not unmounted the disk")
	}
	if _, err := command(ctx, "e2fsck", "-p", image); err != nil { // plays the journal, as a boot would
		t.Error(err)
	}
	dir := t.TempDir()
	for _, what := range []string{"/var/lib/postern", "/story"} {
		if _, err := command(ctx, "debugfs", "-R", "rdump "+what+" "+dir, image); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "story", "memory.json")); err != nil { // or nothing was brought back
		t.Fatal(err)
	}
	if why, err := os.ReadFile(filepath.Join(dir, "story", "stuck")); err == nil {
		t.Errorf("the init did not power the machine off: %s", why)
	}
	host, err := qemu.BuildAgent(ctx, runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"identity.db", "cache.db"} {
		said, err := command(ctx, host, "store", "verify", filepath.Join(dir, "postern", name))
		if err != nil {
			t.Error(err)
		}
		t.Logf("after the power off: %s", strings.TrimSpace(said))
	}
}

func TestBoardWithBusyboxKeepsItsIdentityThroughEveryBoot(t *testing.T) {
	life(t, "short", "arm64", "busybox")
}

func TestBoardWithSystemdKeepsItsIdentityThroughEveryBoot(t *testing.T) {
	life(t, "full", "arm64", "systemd")
}

func TestBoardWithOpenRCKeepsItsIdentityThroughEveryBoot(t *testing.T) {
	life(t, "full", "arm64", "openrc")
}

func TestBoardWithSysvinitKeepsItsIdentityThroughEveryBoot(t *testing.T) {
	life(t, "full", "arm64", "inittab")
}

func TestBoardWithRunitKeepsItsIdentityThroughEveryBoot(t *testing.T) {
	life(t, "full", "arm64", "runit")
}

func TestBoardWithS6KeepsItsIdentityThroughEveryBoot(t *testing.T) { life(t, "full", "arm64", "s6") }

func TestPCWithSystemdKeepsItsIdentityThroughEveryBoot(t *testing.T) {
	life(t, "full", "amd64", "systemd")
}

func TestPCWithBusyboxKeepsItsIdentityThroughEveryBoot(t *testing.T) {
	life(t, "full", "amd64", "busybox")
}

func TestBoardWithSysvinitScriptKeepsItsIdentityThroughEveryBoot(t *testing.T) {
	life(t, "full", "arm64", "sysvinit")
}

// TestBrokenInitFileFailsTheStory plants mistakes in what was installed: each
// must end the story at the step that is about it, and for its own reason.
func TestBrokenInitFileFailsTheStory(t *testing.T) {
	for _, tc := range []struct {
		name, tier, init, at, because string
		spoil                         change
	}{
		{"no line in the inittab", "short", "busybox", "start", "connection refused", edit("etc/inittab", "::respawn:/usr/bin/postern", "# nothing")},
		{"an agent that stays root", "full", "busybox", "start", "owner is uid", edit("etc/inittab", "::respawn:/usr/bin/postern", "::respawn:/usr/bin/postern run")},
		{"a wrong ExecStart", "full", "systemd", "start", "203/EXEC", edit("usr/lib/systemd/system/postern.service", "ExecStart=", "ExecStart=/usr/bin/posterm run")},
		{"systemd: a socket on another port", "full", "systemd", "start", "was handed over for 127.0.0.1:40343", edit("usr/lib/systemd/system/postern.socket", "ListenStream=127", "ListenStream=127.0.0.1:40343")},
		{"OpenRC: another account", "full", "openrc", "start", "unable to open the logfile", edit("etc/init.d/postern", "command_user=", `command_user="nobody:nogroup"`)},
		{"runit: an agent that stays root", "full", "runit", "start", "owner is uid", edit("etc/sv/postern/run", "exec chpst", "exec /usr/bin/postern run")},
		{"s6: an agent that stays root", "full", "s6", "start", "owner is uid", edit("etc/s6/sv/postern/run", "exec s6-setuidgid", "exec /usr/bin/postern run --ready-fd 3")},
		{"System V: another run level", "full", "inittab", "start", "connection refused", edit("etc/inittab", "po:2345:", "po:345:respawn:/usr/bin/postern run --user postern:himds")},
		{"a script of another program", "full", "sysvinit", "start", "connection refused", edit("etc/init.d/postern", "agent=", "agent=/usr/bin/posterm")},
		{"a line that does not respawn", "full", "busybox", "killed", "no new agent", edit("etc/inittab", "::respawn:/usr/bin/postern", "::once:/usr/bin/postern run --user postern:himds")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			qemu.Need(t, tc.tier)
			tools(t)
			s := systems()[tc.init]
			s.plan.Again = 20 // an agent that does come back is not awaited here
			if tc.at == "start" {
				s.plan.Patient = 20
			}
			got, exit, said := fails(t, s, buildRoot(t, "arm64", s, tc.spoil))
			step, reached := got[tc.at]
			if !reached || step.OK {
				t.Errorf("step %q: reached %v, ok %v; want it to fail", tc.at, reached, step.OK)
			}
			if !strings.Contains(said, tc.because) {
				t.Errorf("nobody said %q:\n%s", tc.because, said)
			}
			if exit.RC == 0 {
				t.Error("the boot ended with 0")
			}
			t.Logf("%s: %s", tc.at, step.Got)
		})
	}
}

// edit replaces the one line of a file that has a prefix.
func edit(name, prefix, with string) change {
	return func(root string) error {
		return replace(filepath.Join(root, name), prefix, func(string) string { return with })
	}
}

// fails plays the first boot of a spoiled root and returns its steps, its end,
// and all that was said in the story and on the console.
func fails(t *testing.T, s system, image string) (steps map[string]qemu.Message, exit qemu.Message, said string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	vm, err := qemu.Start(ctx, machine(t, "arm64", s, boots(s.plan.Systemd)[0], image))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = vm.Close() }()
	steps = map[string]qemu.Message{}
	for m := range vm.Lines() {
		said += m.T + m.Got + "\n"
		if m.Kind == port.Step {
			steps[m.Name] = m
		}
	}
	exit, err = vm.Result(ctx)
	if err != nil {
		t.Fatalf("%v\n%s", err, vm.Tail(30))
	}
	return steps, exit, said + vm.Tail(1000)
}

// TestEveryStepHasAName guards the two lists against a step that is expected twice.
func TestEveryStepHasAName(t *testing.T) {
	for _, b := range boots(true) {
		steps := slices.Sorted(slices.Values(b.steps))
		if len(slices.Compact(steps)) != len(b.steps) {
			t.Errorf("boot %s expects a step twice: %v", b.name, b.steps)
		}
	}
}
