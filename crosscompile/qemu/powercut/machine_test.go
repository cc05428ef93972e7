//go:build linux

package powercut

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/crosscompile/qemu"
)

var (
	_      = qemu.Flag()
	points = flag.Int("powercut.points", 0, "crash points of a recording; 0: what the tier says")
	seed   = flag.Uint64("powercut.seed", 1, "chooses points and what a cut loses")
	from   = flag.String("powercut.from", "", "a folder with base and log that a failed test kept: replay it, record nothing")
	point  = flag.Int("powercut.point", -1, "with -powercut.from: this point alone")
	keep   = flag.Bool("powercut.keep", false, "keep the recordings")
)

// machine is what is recorded.
type machine struct {
	kernel  string // flavour; cloud-arm64 if empty
	fs      string
	options string   // mount options
	args    []string // of the writer
	noSync  bool     // the planted fault
}

// The first partition in the guest, and the state directory in it.
const (
	guestMount = "/state"
	stateName  = "postern"
)

// full reports whether the long tier was asked for.
func full() bool { return qemu.Tier() == "full" }

// folder is a folder of the test that stays when the test fails. It lies where
// it costs no disk, if there is such a place.
func folder(t *testing.T) string {
	t.Helper()
	parent := os.TempDir()
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		parent = "/dev/shm"
	}
	dir, err := os.MkdirTemp(parent, "powercut-") //nolint:usetesting // it stays when the test fails
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() || *keep {
			t.Logf("kept: %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// needs ends the test where it cannot work.
func needs(t *testing.T, tier string) {
	t.Helper()
	qemu.Need(t, tier)
	qemu.Tools(t, "qemu-system-aarch64", "mke2fs", "mount", "umount", "depmod", "modprobe", "apt-get", "dpkg-deb")
	qemu.NeedRoot(t, "the disk of each cut is mounted")
}

// buildWriter compiles the guest's program. With noSync bbolt is told not to
// sync: the option is planted into a copy of one source file, for the product has
// no way to set it.
func buildWriter(ctx context.Context, dir string, noSync bool) (string, error) {
	root, err := qemu.Root(ctx)
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "writer")
	args := []string{"build", "-trimpath", "-ldflags", "-s -w", "-o", out}
	if noSync {
		overlay, err := plant(dir, filepath.Join(root, "store", "handle.go"), "NoSync:   o.testOnlyNoSync,", "NoSync:   true,")
		if err != nil {
			return "", err
		}
		args = append(args, "-overlay", overlay)
	}
	if err := command(ctx, root, []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=arm64"}, "go", append(args, "./crosscompile/qemu/powercut/writer")...); err != nil {
		return "", err
	}
	return out, nil
}

// plant writes a go build overlay in which one file has one line changed.
func plant(dir, file, line, by string) (string, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	if strings.Count(string(content), line) != 1 {
		return "", fmt.Errorf("%s has no line %q any more: the fault cannot be planted", file, line)
	}
	copied, overlay := filepath.Join(dir, "planted.go"), filepath.Join(dir, "overlay.json")
	return overlay, errors.Join(
		os.WriteFile(copied, []byte(strings.Replace(string(content), line, by, 1)), 0o600),
		os.WriteFile(overlay, fmt.Appendf(nil, `{"Replace":{%q:%q}}`, file, copied), 0o600),
	)
}

// guest is a machine that can be booted again and again.
type guest struct {
	machine
	spec qemu.Spec
	disk string
}

// prepare builds everything that a boot needs, and a new disk.
func (m machine) prepare(t *testing.T, dir string) guest {
	t.Helper()
	flavour, modules := m.kernel, []string{"virtio_blk"}
	if flavour == "" {
		flavour = "cloud-arm64"
	} else {
		modules = append(modules, m.fs)
	}
	kernel, err := qemu.FetchKernel(t.Context(), flavour)
	if err != nil {
		t.Fatal(err)
	}
	writer, err := buildWriter(t.Context(), dir, m.noSync)
	if err != nil {
		t.Fatal(err)
	}
	g := guest{machine: m, disk: filepath.Join(dir, "disk")}
	g.spec = qemu.Spec{Arch: "arm64", Kernel: kernel.Image, Initrd: filepath.Join(dir, "initrd"), Job: "powercut"}
	options := "noatime"
	if m.options != "" {
		options += "," + m.options
	}
	a := &qemu.Archive{}
	a.Copy("bin/writer", 0o755, writer)
	job := qemu.Job{
		ID: "powercut", Mode: "job", Path: "/bin/writer", Args: append([]string{"-dir", guestMount + "/" + stateName, "-marks-on", "/dev/vda2"}, m.args...),
		Mounts: []qemu.Mount{{Device: "/dev/vda1", Dir: guestMount, Type: m.fs, Options: options}},
	}
	if err := qemu.Initrd(t.Context(), kernel, "arm64", g.spec.Initrd, job, a, modules...); err != nil {
		t.Fatal(err)
	}
	if err := MakeDisk(t.Context(), g.disk, m.fs); err != nil {
		t.Fatal(err)
	}
	return g
}

// run boots the guest and cuts its power when until says so, which is asked
// with the newest mark on the disk, 20 times a second. The job never ends
// by itself, so an exit line is a failure. It returns what the writer said.
func (g guest) run(t *testing.T, log string, until func(Mark) bool) (said []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	spec := g.spec
	spec.Disks = []qemu.Disk{{File: g.disk, LogFile: log}}
	vm, err := qemu.Start(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = vm.Close() }()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case m, more := <-vm.Lines():
			if !more || m.Kind == "exit" {
				t.Fatalf("the guest ended: rc %d %s %q\n%s", m.RC, m.Signal, said, vm.Tail(40))
			}
			if m.Kind == "out" {
				said = append(said, m.T)
			}
		case <-look.C:
			if m, err := diskMark(g.disk); err != nil && !errors.Is(err, ErrNoMark) {
				t.Fatal(err)
			} else if err == nil && until(m) {
				vm.Kill()
				return said
			}
		case <-ctx.Done():
			t.Fatalf("the guest was too slow: %v\n%s", ctx.Err(), vm.Tail(40))
		}
	}
}

// diskMark is the newest mark on a disk.
func diskMark(disk string) (Mark, error) {
	f, err := os.Open(disk)
	if err != nil {
		return Mark{}, err
	}
	m, err := LastMark(f, MarkStart)
	return m, errors.Join(err, f.Close())
}
