//go:build linux

package qemu

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// env chooses the tier where a flag cannot: the children of a test, CI.
const env = "POSTERN_QEMU"

// Flag registers -qemu=short|full; call it from a package variable of the
// tests that boot a machine.
func Flag() *string {
	return flag.String("qemu", "", "boot machines: short or full (or the environment variable "+env+")")
}

// Tier is what was asked for: "", "short" or "full". The flag counts more than
// the environment.
func Tier() string {
	if f := flag.Lookup("qemu"); f != nil && f.Value.String() != "" {
		return f.Value.String()
	}
	return os.Getenv(env)
}

// Need skips a test whose tier was not asked for. tier is "short" for what runs on
// every change, "full" for the rest.
func Need(t testing.TB, tier string) {
	t.Helper()
	switch asked := Tier(); {
	case asked != "" && asked != "short" && asked != "full":
		t.Fatalf("-qemu is %q, want short or full", asked)
	case asked == "" && tier == "short":
		t.Skip("boots a machine; run go run ./crosscompile/tests boot")
	case asked != "full" && tier != "short":
		t.Skip("boots a machine; run go run ./crosscompile/tests hardware")
	}
}

// NeedRoot leaves the test out for everybody else, and says why: CI is root.
func NeedRoot(t testing.TB, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not run: " + why + ", which takes root")
	}
}

// packages are the Debian packages of the programs that are called.
func packages() map[string]string {
	return map[string]string{
		"qemu-system-aarch64": "qemu-system-arm", "qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils", "qemu-io": "qemu-utils",
		"depmod": "kmod", "modprobe": "kmod", "xz": "xz-utils", "mke2fs": "e2fsprogs", "mkfs.ext4": "e2fsprogs", "e2fsck": "e2fsprogs", "debugfs": "e2fsprogs",
		"mkfs.f2fs": "f2fs-tools", "fsck.f2fs": "f2fs-tools", "mmdebstrap": "mmdebstrap", "busybox": "busybox-static", "genimage": "genimage",
		"mksquashfs": "squashfs-tools", "mkfs.vfat": "dosfstools", "mcopy": "mtools", "swtpm": "swtpm", "cpio": "cpio",
		"unshare": "util-linux", "losetup": "mount", "mount": "mount", "umount": "mount", "timeout": "coreutils", "cp": "coreutils",
		"mkimage": "u-boot-tools", "fdtput": "device-tree-compiler", "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd": "qemu-efi-aarch64",
		"apt-get": "apt", "apt-cache": "apt", "dpkg-deb": "dpkg",
		"/usr/lib/u-boot/qemu_arm64/u-boot.bin": "u-boot-qemu", "/usr/share/AAVMF/AAVMF_CODE.fd": "qemu-efi-aarch64", "/usr/share/OVMF/OVMF_CODE.fd": "ovmf",
	}
}

// Find returns the path of a program, also below /usr/sbin and /sbin, which a
// user's PATH lacks; or of a file, if name is a path. The error names the
// Debian package.
func Find(name string) (string, error) {
	if filepath.IsAbs(name) {
		if _, err := os.Stat(name); err == nil {
			return name, nil
		}
	} else {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
		for _, dir := range []string{"/usr/sbin", "/sbin"} {
			if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
				return path, nil
			}
		}
	}
	pkg := packages()[name]
	if pkg == "" {
		pkg = "its package"
	}
	return "", fmt.Errorf("%s is missing: apt-get install %s, or go run ./crosscompile/tests boot as root, which installs it", name, pkg)
}

// Tools ends the test if a program (or a file, by its absolute path) is missing.
func Tools(t testing.TB, names ...string) {
	t.Helper()
	var missing []string
	for _, name := range names {
		if _, err := Find(name); err != nil {
			missing = append(missing, err.Error())
		}
	}
	if len(missing) > 0 {
		t.Fatal(strings.Join(missing, "\n"))
	}
}
