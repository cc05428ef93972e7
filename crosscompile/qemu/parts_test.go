//go:build linux

package qemu

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/crosscompile/qemu/port"
)

func archive(t *testing.T) *Archive {
	t.Helper()
	a := &Archive{}
	host := filepath.Join(t.TempDir(), "host")
	if err := os.WriteFile(host, []byte("of the host"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.File("etc/deep/file", 0o640, []byte("abcde"))
	a.Copy("/bin/tool", 0o755|fs.ModeSetuid, host)
	a.Dir("tmp", 0o777|fs.ModeSticky)
	a.Link("bin/link", "tool")
	a.Node("dev/null", 0o666, 'c', 1, 3)
	return a
}

// TestArchiveIsWhatTheKernelUnpacks reads it with cpio, which is not ours.
func TestArchiveIsWhatTheKernelUnpacks(t *testing.T) {
	var packed bytes.Buffer
	if _, err := archive(t).WriteTo(&packed); err != nil {
		t.Fatal(err)
	}
	plain, err := gzip.NewReader(&packed)
	if err != nil {
		t.Fatal(err)
	}
	Tools(t, "cpio")
	cmd := exec.CommandContext(t.Context(), "cpio", "-itv", "--quiet", "--numeric-uid-gid")
	cmd.Stdin = plain
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("cpio: %v\n%s", err, out)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		lines = append(lines, strings.Join(append([]string{f[0], f[2], f[3], f[4]}, f[slices.Index(f, "1970")+1:]...), " "))
	}
	want := []string{
		"drwxr-xr-x 0 0 0 .", "drwxr-xr-x 0 0 0 etc", "drwxr-xr-x 0 0 0 etc/deep", "-rw-r----- 0 0 5 etc/deep/file",
		"drwxr-xr-x 0 0 0 bin", "-rwsr-xr-x 0 0 11 bin/tool", "drwxrwxrwt 0 0 0 tmp", "lrwxrwxrwx 0 0 4 bin/link -> tool",
		"drwxr-xr-x 0 0 0 dev", "crw-rw-rw- 0 0 1, dev/null",
	}
	for i, w := range want {
		if i >= len(lines) || !strings.HasPrefix(lines[i], strings.TrimSuffix(w, " dev/null")) || !strings.HasSuffix(lines[i], w[strings.LastIndex(w, " "):]) {
			t.Errorf("entry %d is %q, want %q", i, append(lines, make([]string, 20)...)[i], w)
		}
	}
	if len(lines) != len(want) {
		t.Errorf("%d entries, want %d:\n%s", len(lines), len(want), out)
	}
}

func TestArchiveHasTheSameBytesEachTime(t *testing.T) {
	var one, other bytes.Buffer
	for _, w := range []*bytes.Buffer{&one, &other} {
		if _, err := archive(t).WriteTo(w); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(one.Bytes(), other.Bytes()) {
		t.Error("two archives of the same content differ")
	}
}

// TestMachineNeverUsesKVM: on a nested host its device opens and the guest hangs.
func TestMachineNeverUsesKVM(t *testing.T) {
	for _, s := range []Spec{{}, {Arch: "amd64"}, {CPU: "cortex-a76", Reboot: true, Net: true}} {
		s.Kernel, s.Job = "k", "j"
		line := strings.Join(s.args("/dir"), " ")
		if strings.Contains(line, "kvm") || !strings.Contains(line, "-accel tcg") || !strings.Contains(line, "panic=-1") || !strings.Contains(line, "postern.job=j") {
			t.Errorf("%+v: %s", s, line)
		}
		if strings.Contains(line, "-no-reboot") == s.Reboot {
			t.Errorf("reboot %v: %s", s.Reboot, line)
		}
		if strings.Contains(line, "-nic none") == s.Net || (s.Net && !strings.Contains(line, "restrict=on")) {
			t.Errorf("net %v: %s", s.Net, line)
		}
	}
}

func TestComplaintsOfAKernelAreSeen(t *testing.T) {
	for _, line := range []string{
		"[    1.5] Kernel panic - not syncing: Attempted to kill init!", "[ 3.1] Internal error: Oops: 96000046 [#1] SMP",
		"[ 2.0] Out of memory: Killed process 77 (postern)", "[ 2.0] hog invoked oom-killer: gfp_mask=0x1", "[ 9.9] BUG: kernel NULL pointer dereference, address: 0",
	} {
		if got := Complaint("[ 0.1] Booting\r\n" + line + "\r\n[ 9.0] more"); got != line {
			t.Errorf("%q is not seen: %q", line, got)
		}
	}
	if got := Complaint("[ 0.1] Booting\n[ 38.6] reboot: Power down\nan error of ours"); got != "" {
		t.Errorf("%q is no complaint", got)
	}
}

// TestConsoleIsKeptWhereSomebodyWantsToReadIt: also that of a machine that did well.
func TestConsoleIsKeptWhereSomebodyWantsToReadIt(t *testing.T) {
	dir, kept := filepath.Join(t.TempDir(), "pqemu-17"), filepath.Join(t.TempDir(), "consoles")
	t.Setenv(consoles, kept)
	for range 2 { // a folder that is gone is nobody's console
		vm := &VM{dir: dir, job: "systemd-arm64-first", lines: newQueue(), done: make(chan struct{}), kill: func() {}}
		if _, err := os.Stat(kept); err != nil {
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(vm.Console(), []byte("it boots"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		vm.lines.close()
		close(vm.done)
		if err := vm.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(filepath.Join(kept, "systemd-arm64-first-17.log")); err != nil || string(got) != "it boots" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestDownloadWithAnotherSumIsRefused changes one bit.
func TestDownloadWithAnotherSumIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.deb")
	if err := os.WriteFile(file, []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	const sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" // of "abc", FIPS 180-4
	if err := compare(file, sum); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(file, []byte("abb"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := compare(file, sum); err == nil {
		t.Error("another content was taken for it")
	}
}

func TestQueueLosesNothingThatNobodyReads(t *testing.T) {
	q := newQueue()
	const many = 10_000
	for i := range many {
		q.put(Message{Kind: port.Ack, Seq: uint64(i)})
	}
	q.close()
	next := uint64(0)
	for m := range q.out {
		if m.Seq != next {
			t.Fatalf("got %d, want %d", m.Seq, next)
		}
		next++
	}
	if next != many {
		t.Errorf("%d of %d came", next, many)
	}
}

// TestMachineThatCannotStartSaysWhy: QEMU refuses a CPU that is none.
func TestMachineThatCannotStartSaysWhy(t *testing.T) {
	Need(t, "short")
	Tools(t, "qemu-system-aarch64")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	vm, err := Start(ctx, Spec{CPU: "no-such-cpu", Kernel: os.DevNull})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = vm.Close() }()
	if _, err := vm.Result(ctx); !errors.Is(err, ErrNoStart) || !strings.Contains(err.Error(), "no-such-cpu") {
		t.Errorf("result is %v", err)
	}
}
