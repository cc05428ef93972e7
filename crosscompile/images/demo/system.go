//go:build linux

package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"postern/crosscompile"
	"postern/crosscompile/qemu"
)

//go:embed files
var files embed.FS

// system is one slot's content: a read-only root, a kernel, an initramfs.
type system struct {
	version string
	extra   map[string]string // further files of the root: path to a file of the host
	inittab []string          // further lines of its inittab
	broken  bool              // a root without an agent, that does not prove itself
}

// The files of a slot, in its folder of the boot partition or in an update.
const (
	kernelFile = "vmlinuz"
	initrdFile = "initrd"
	rootFile   = "root.squashfs"
)

// make writes the three files of the system to dir.
func (s system) make(ctx context.Context, dir string) error {
	kernel, err := qemu.FetchKernel(ctx, "cloud-arm64")
	if err != nil {
		return err
	}
	busybox, err := qemu.FetchPackage(ctx, "busybox-static", "arm64")
	if err != nil {
		return err
	}
	if err := copyFile(filepath.Join(dir, kernelFile), kernel.Image, 0o644); err != nil {
		return err
	}
	if err := initrd(kernel, filepath.Join(busybox, "bin/busybox"), filepath.Join(dir, initrdFile)); err != nil {
		return err
	}
	tree, err := os.MkdirTemp(dir, "root-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tree) }()
	if err := s.root(ctx, tree, filepath.Join(busybox, "bin/busybox")); err != nil {
		return err
	}
	return call(ctx, "mksquashfs", tree, filepath.Join(dir, rootFile), "-comp", "xz", "-noappend", "-all-root", "-all-time", "0", "-mkfs-time", "0", "-quiet", "-no-progress")
}

// initrd finds and mounts the slot's root. The modules are what the model board
// needs; a board with its drivers in the kernel needs none.
func initrd(k qemu.Kernel, busybox, to string) error {
	script, err := files.ReadFile("files/initrd.sh")
	if err != nil {
		return err
	}
	var a qemu.Archive
	a.Node("dev/console", 0o600, 'c', 5, 1)
	a.Node("dev/null", 0o666, 'c', 1, 3)
	for _, dir := range []string{"proc", "sys", "root"} {
		a.Dir(dir, 0o755)
	}
	a.Copy("bin/busybox", 0o755, busybox)
	a.File("init", 0o755, script)
	err = k.Pack(&a, "virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio_rng", "squashfs", "ext4", "vfat", "nls_ascii", "nls_cp437", "rtc-pl031")
	if err != nil {
		return err
	}
	return a.Save(to)
}

// root makes the tree of the read-only root.
func (s system) root(ctx context.Context, tree, busybox string) error {
	if err := os.Chmod(tree, 0o755); err != nil {
		return err
	}
	for _, dir := range []string{
		"bin", "sbin", "etc", "usr/bin", "usr/sbin", "usr/lib/demo", "proc", "sys", "dev", "run", "tmp", "data", "boot", "root", "var/lib/postern", "var/opt", "opt",
	} {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
			return err
		}
	}
	if err := copyFile(filepath.Join(tree, "bin/busybox"), busybox, 0o755); err != nil {
		return err
	}
	for _, name := range applets() {
		if err := os.Symlink("/bin/busybox", filepath.Join(tree, name)); err != nil {
			return err
		}
	}
	if err := s.settings(tree); err != nil {
		return err
	}
	if err := s.programs(ctx, tree); err != nil {
		return err
	}
	for to, from := range s.extra {
		if err := copyFile(filepath.Join(tree, to), from, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// applets are the programs of the image: what its scripts call, and no shell
// that anybody could log in with.
func applets() []string {
	return strings.Fields(`bin/sh bin/mount bin/umount bin/mkdir bin/grep bin/sed bin/chown bin/sleep bin/ls bin/cat bin/rm bin/cp bin/dd bin/sync
		sbin/init sbin/ip usr/bin/killall bin/pidof bin/usleep sbin/udhcpc sbin/reboot sbin/poweroff sbin/syslogd usr/bin/id`)
}

// settings writes the accounts and what the image's own scripts need.
func (s system) settings(tree string) error {
	for name, content := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/false\n", "etc/group": "root:x:0:\n", "etc/shadow": "root:*:19000:0:99999:7:::\n",
		"etc/machine-id": "", "etc/hostname": "postern-demo\n",
	} {
		if err := os.WriteFile(filepath.Join(tree, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	for name, to := range map[string]string{"inittab": "etc/inittab", "postern.toml": "etc/postern/postern.toml"} {
		if err := s.place(tree, name, to, 0o644); err != nil {
			return err
		}
	}
	for _, name := range []string{"rc", "udhcpc", "first-boot", "confirm", "stop"} {
		if err := s.place(tree, name, "usr/lib/demo/"+name, 0o755); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(filepath.Join(tree, "etc/inittab"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strings.Join(append(s.inittab, ""), "\n"))
	return errors.Join(err, f.Close())
}

func (s system) place(tree, name, to string, mode fs.FileMode) error {
	content, err := files.ReadFile("files/" + name)
	if err != nil {
		return err
	}
	to = filepath.Join(tree, to)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, content, mode)
}

// programs builds the product and the slot program, and lets the product
// install itself: the image gets what every device gets.
func (s system) programs(ctx context.Context, tree string) error {
	project, err := qemu.Root(ctx)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "postern-demo-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	arm64, err := target("arm64")
	if err != nil {
		return err
	}
	product, err := crosscompile.Build(ctx, project, work, arm64, s.version)
	if err != nil {
		return err
	}
	if err := compile(ctx, project, filepath.Join(tree, "usr/bin/slot"), "arm64", "./crosscompile/images/slot"); err != nil {
		return err
	}
	if s.broken {
		return nil
	}
	own := filepath.Join(work, "postern")
	if err := compile(ctx, project, own, "", "./agent"); err != nil {
		return err
	}
	return call(ctx, own, "install", "--root", tree, "--init", "busybox", "--binary", product)
}

func target(arch string) (crosscompile.Target, error) {
	for _, t := range crosscompile.Targets() {
		if t.OS == "linux" && t.Arch == arch {
			return t, nil
		}
	}
	return crosscompile.Target{}, fmt.Errorf("there is no target linux/%s", arch)
}

// compile builds a command for arch, "" for this machine.
func compile(ctx context.Context, project, to, arch, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", to, pkg)
	cmd.Dir = project
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if arch != "" {
		cmd.Env = append(cmd.Env, "GOOS=linux", "GOARCH="+arch)
	}
	return ended(cmd)
}

// call runs a program of the host, wherever it lies.
func call(ctx context.Context, program string, args ...string) error {
	path, err := qemu.Find(program)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin") // it starts such programs itself
	return ended(cmd)
}

func ended(cmd *exec.Cmd) error {
	if words, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, words)
	}
	return nil
}

func copyFile(to, from string, mode fs.FileMode) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(to, content, mode), os.Chmod(to, mode))
}
