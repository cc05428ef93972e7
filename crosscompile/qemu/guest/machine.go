//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"unsafe"

	"postern/crosscompile/qemu/port"
)

// mountBasics mounts what every program expects to find.
func mountBasics() error {
	for _, m := range []port.Mount{
		{Device: "proc", Dir: "/proc", Type: "proc", Options: "nosuid,nodev,noexec"},
		{Device: "sysfs", Dir: "/sys", Type: "sysfs", Options: "nosuid,nodev,noexec"},
		{Device: "devtmpfs", Dir: "/dev", Type: "devtmpfs", Options: "nosuid"},
		{Device: "devpts", Dir: "/dev/pts", Type: "devpts"},
		{Device: "tmpfs", Dir: "/dev/shm", Type: "tmpfs", Options: "nosuid,nodev,mode=1777"},
		{Device: "tmpfs", Dir: "/tmp", Type: "tmpfs", Options: "nosuid,nodev,mode=1777"},
		{Device: "tmpfs", Dir: "/run", Type: "tmpfs", Options: "nosuid,nodev,mode=0755"},
	} {
		if err := mount(m, m.Dir); err != nil {
			return err
		}
	}
	return nil
}

// flags are the mount options that the kernel takes as bits.
func flags() map[string]uintptr {
	return map[string]uintptr{
		"ro": syscall.MS_RDONLY, "nosuid": syscall.MS_NOSUID, "nodev": syscall.MS_NODEV, "noexec": syscall.MS_NOEXEC,
		"noatime": syscall.MS_NOATIME, "sync": syscall.MS_SYNCHRONOUS, "rw": 0,
	}
}

func mount(m port.Mount, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if strings.HasPrefix(m.Device, "/dev/") && !await(patience, func() bool { return exists(m.Device) }) {
		return fmt.Errorf("mount %s: the device did not appear", m.Device)
	}
	var bits uintptr
	var rest []string
	for _, word := range strings.Split(m.Options, ",") {
		if bit, known := flags()[word]; known {
			bits |= bit
		} else if word != "" {
			rest = append(rest, word)
		}
	}
	if err := syscall.Mount(m.Device, dir, m.Type, bits, strings.Join(rest, ",")); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.Device, dir, err)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// loadModules loads the files that /modules lists, in that order, and frees
// them: the initramfs is memory.
func loadModules() error {
	list, err := os.ReadFile("/modules")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	none := []byte{0}
	for path := range strings.FieldsSeq(string(list)) {
		image, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if len(image) == 0 {
			return fmt.Errorf("module %s is empty", path)
		}
		_, _, e := syscall.Syscall(syscall.SYS_INIT_MODULE, uintptr(unsafe.Pointer(&image[0])), uintptr(len(image)), uintptr(unsafe.Pointer(&none[0])))
		if e != 0 && e != syscall.EEXIST && e != syscall.ENODEV {
			return fmt.Errorf("module %s: %w", path, e)
		}
		_ = os.Remove(path)
	}
	return nil
}

// loopback brings lo up.
func loopback() error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	defer func() { _ = syscall.Close(fd) }()
	var request [40]byte // struct ifreq
	copy(request[:], "lo")
	request[16] = syscall.IFF_UP
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request[0]))); e != 0 {
		return fmt.Errorf("loopback: %w", e)
	}
	return nil
}

// enterRoot mounts the root, moves what is mounted at dirs into it and makes it /.
func enterRoot(root port.Mount, dirs ...string) error {
	const to = "/newroot"
	if err := mount(root, to); err != nil {
		return err
	}
	for _, dir := range dirs {
		if err := syscall.Mount(dir, to+dir, "", syscall.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", dir, err)
		}
	}
	if err := os.Chdir(to); err != nil {
		return err
	}
	if err := syscall.Mount(".", "/", "", syscall.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := syscall.Chroot("."); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	return os.Chdir("/")
}

// jobRoot makes a root with more programs the place of the job; the files of
// /job stay where they are.
func jobRoot(root port.Mount) error {
	if err := os.MkdirAll("/job", 0o755); err != nil {
		return err
	}
	if err := syscall.Mount("/job", "/job", "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind /job: %w", err)
	}
	return enterRoot(root, "/dev", "/proc", "/sys", "/tmp", "/run", "/job")
}

// switchRoot frees the initramfs, enters the root and becomes its init.
func switchRoot(job port.Job) error {
	if job.Root == nil || len(job.Init) == 0 {
		return errors.New("switch: the job names no root or no init")
	}
	entries, err := os.ReadDir("/")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			_ = os.Remove("/" + e.Name())
		}
	}
	if err := enterRoot(*job.Root, "/dev", "/proc", "/sys"); err != nil {
		return err
	}
	env := append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=linux", "HOME=/"}, job.Env...)
	return fmt.Errorf("exec %s: %w", job.Init[0], syscall.Exec(job.Init[0], job.Init, env))
}
