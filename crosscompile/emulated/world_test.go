//go:build linux

package emulated

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/crosscompile"
)

// tierVariable is short or full; without it the tests skip.
// worldVariable is the processor whose world this process stands in.
const (
	tierVariable  = "POSTERN_EMULATED"
	worldVariable = "POSTERN_EMULATED_WORLD"
)

// machine is a foreign processor.
type machine struct {
	name     string // of the target
	target   crosscompile.Target
	emulator string
	class    byte // 1: 32 bits, 2: 64 bits (elf.h EI_CLASS)
	number   byte // e_machine
	short    bool // part of the short tier
}

func machines() []machine {
	return []machine{
		{"armv7", crosscompile.Target{OS: "linux", Arch: "arm", ARM: "7"}, "qemu-arm-static", 1, 40, true},
		{"riscv64", crosscompile.Target{OS: "linux", Arch: "riscv64"}, "qemu-riscv64-static", 2, 243, true},
		{"arm64", crosscompile.Target{OS: "linux", Arch: "arm64"}, "qemu-aarch64-static", 2, 183, false},
		{"armv6", crosscompile.Target{OS: "linux", Arch: "arm", ARM: "6"}, "qemu-arm-static", 1, 40, false},
	}
}

// need skips without the tier's variable, and fails where an emulator is missing.
func need(t *testing.T, m machine) {
	t.Helper()
	switch tier := os.Getenv(tierVariable); {
	case tier == "" || tier == "short" && !m.short:
		t.Skip("not run: starts foreign binaries; run go run ./crosscompile/tests emulated")
	case tier != "short" && tier != "full":
		t.Fatalf("%s is %q, want short or full", tierVariable, tier)
	}
	if _, err := exec.LookPath(m.emulator); err != nil {
		t.Fatalf("%s of the package qemu-user-static is missing; go run ./crosscompile/tests emulated installs it", m.emulator)
	}
	if os.Geteuid() != 0 {
		t.Skip("not run: the folders above the state have to be root's, and the suites act as several accounts, which takes root")
	}
}

func TestMain(m *testing.M) {
	if name := os.Getenv(worldVariable); name != "" {
		if err := enter(name); err != nil {
			fmt.Fprintln(os.Stderr, "world:", err)
			os.Exit(125)
		}
	}
	os.Exit(m.Run())
}

// inWorld runs the calling test again in a world of its own: a network of
// loopback alone, an empty /var/opt, and a kernel that starts the machine's
// programs like any other, also when one starts itself. It returns true there.
func inWorld(t *testing.T, m machine, limit time.Duration, env ...string) bool {
	t.Helper()
	if os.Getenv(worldVariable) == m.name {
		return true
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	pattern := "^" + strings.ReplaceAll(t.Name(), "/", "$/^") + "$"
	cmd := exec.CommandContext(t.Context(), self, "-test.run="+pattern, "-test.v", "-test.timeout="+limit.String())
	cmd.Env = append(append(os.Environ(), worldVariable+"="+m.name), env...)
	ids := func(own int) []syscall.SysProcIDMap {
		if os.Geteuid() != 0 {
			return []syscall.SysProcIDMap{{ContainerID: 0, HostID: own, Size: 1}}
		}
		return []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 65536}}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:                 syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC,
		UidMappings:                ids(os.Getuid()),
		GidMappings:                ids(os.Getgid()),
		GidMappingsEnableSetgroups: os.Geteuid() == 0,
	}
	var words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &words, &words
	err = cmd.Run()
	t.Logf("in the world of %s:\n%s", m.name, words.String())
	if err != nil || !strings.Contains(words.String(), "--- PASS: "+strings.SplitN(t.Name(), "/", 2)[0]) {
		t.Errorf("%s: %v", m.name, errors.Join(err, errors.New("the test did not pass there")))
	}
	return false
}

const binfmt = "/proc/sys/fs/binfmt_misc"

// enter furnishes the world. Everything in it is gone with its last process.
func enter(name string) error {
	var m machine
	for _, one := range machines() {
		if one.name == name {
			m = one
		}
	}
	emulator, err := exec.LookPath(m.emulator)
	if err != nil {
		return err
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := syscall.Mount("none", "/var/opt", "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("empty /var/opt: %w", err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("ip link set lo up (package iproute2): %w\n%s", err, out)
	}
	if err := syscall.Mount("none", binfmt, "binfmt_misc", 0, ""); err != nil {
		return fmt.Errorf("mount %s in a user namespace, which Linux has since 6.7: %w", binfmt, err)
	}
	return os.WriteFile(filepath.Join(binfmt, "register"), []byte(registration(m, emulator)), 0o200)
}

// registration tells the kernel by which bytes it knows the machine's programs
// (Documentation/admin-guide/binfmt-misc.rst). F opens the emulator now, so
// that it is found from any root.
func registration(m machine, emulator string) string {
	magic := []byte{0x7f, 'E', 'L', 'F', m.class, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, m.number, 0}
	mask := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xff, 0xff, 0xff}
	hex := func(b []byte) string {
		var s strings.Builder
		for _, c := range b {
			fmt.Fprintf(&s, `\x%02x`, c)
		}
		return s.String()
	}
	return ":" + m.name + ":M::" + hex(magic) + ":" + hex(mask) + ":" + emulator + ":F"
}
