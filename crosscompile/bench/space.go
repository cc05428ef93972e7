//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// inside tells the second process that its mounts are its own.
const inside = "POSTERN_BENCH_INSIDE"

// ownMounts runs this program again with mounts of its own, which end with it,
// and exits with its status. Without root, and in the second process, it
// returns.
func ownMounts() error {
	if os.Geteuid() != 0 || os.Getenv(inside) != "" {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	runtime.LockOSThread() // the signal comes when the thread that forked ends
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	os.Exit(cmd.ProcessState.ExitCode())
	return nil
}

// runtimeDir makes the runtime directory, on a tmpfs if that is possible, since
// that is what /run is on a device: on a disk's file system a challenge file took
// 1.5 to 2 times as long.
func (b *bench) runtimeDir() error {
	b.runtime = b.path("run")
	if os.Getenv(inside) != "" {
		if err := os.Mkdir(b.runtime, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("postern-bench", b.runtime, "tmpfs", 0, "mode=0755,size=16m"); err != nil {
			return fmt.Errorf("tmpfs at %s: %w", b.runtime, err)
		}
		b.mounted = true
		return nil
	}
	if user := os.Getenv("XDG_RUNTIME_DIR"); user != "" {
		dir, err := os.MkdirTemp(user, "postern-bench-")
		if err != nil {
			return err
		}
		b.runtime = dir
	}
	return nil
}

// leaveRuntimeDir takes back what runtimeDir did.
func (b *bench) leaveRuntimeDir() {
	if b.mounted {
		_ = unix.Unmount(b.runtime, unix.MNT_DETACH)
	}
	if b.runtime != "" {
		_ = os.RemoveAll(b.runtime)
	}
}

// fileSystem names what path is on, as far as it matters here.
func fileSystem(path string) string {
	var st unix.Statfs_t
	switch err := unix.Statfs(path, &st); {
	case err != nil:
		return err.Error()
	case st.Type == unix.TMPFS_MAGIC:
		return "tmpfs"
	}
	return fmt.Sprintf("file system %#x, not a tmpfs", st.Type)
}
