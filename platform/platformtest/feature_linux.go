package platformtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Feature is something of the kernel that a test cannot do without. Emulators
// of foreign programs (qemu-user) lack all of them, containers some.
type Feature string

// The features that tests ask for.
const (
	SockDiag   Feature = "NETLINK_SOCK_DIAG"
	Openat2    Feature = "openat2"
	Landlock   Feature = "Landlock"
	Namespaces Feature = "clone into a namespace"
	OwnThreads Feature = "a process whose threads are all the program's"
	Devices    Feature = "mknod of a device"
	Ptrace     Feature = "ptrace"
)

// NeedFeature skips a test where this kernel, or what stands in for one, lacks
// the feature. The words are the same everywhere, so that a run under an
// emulator can list what was left out (crosscompile/emulated).
func NeedFeature(t testing.TB, f Feature) {
	t.Helper()
	if err := Lacks(f); err != nil {
		t.Skipf("not run: no %s here: %v", f, err)
	}
}

// Lacks returns nil if the kernel has the feature, else its answer.
func Lacks(f Feature) error {
	switch f {
	case SockDiag:
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	case Openat2:
		fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC})
		if err != nil {
			return err
		}
		return unix.Close(fd)
	case Landlock:
		if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION); errno != 0 {
			return errno
		}
		return nil
	case Namespaces:
		cmd := exec.CommandContext(context.Background(), "/bin/true")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		return cmd.Run()
	case OwnThreads:
		return ownThreads()
	case Devices:
		return mknod()
	case Ptrace:
		if errno := emptyTrace(); errno != 0 && errno != unix.ESRCH {
			return errno
		}
		return nil
	}
	return errors.New("unknown feature")
}

// emptyTrace asks for a process that cannot exist: a kernel that traces says so.
func emptyTrace() syscall.Errno {
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_ATTACH, 1<<30, 0, 0, 0, 0)
	return errno
}

// ownThreads gives all threads of the program a name and looks for one that
// has another: an emulator has threads of its own, on which no system call of
// the program is made.
func ownThreads() error {
	before, err := os.ReadFile("/proc/self/task/" + strconv.Itoa(os.Getpid()) + "/comm")
	if err != nil {
		return err
	}
	const mark = "postern-feature"
	if err := nameThreads(mark); err != nil {
		return err
	}
	defer func() { _ = nameThreads(strings.TrimSpace(string(before))) }() // a name is for people
	paths, err := filepath.Glob("/proc/self/task/*/comm")
	if err != nil {
		return err
	}
	for _, path := range paths {
		name, err := os.ReadFile(path)
		if err == nil && strings.TrimSpace(string(name)) != mark {
			return fmt.Errorf("%s belongs to %s", filepath.Dir(path), strings.TrimSpace(string(name)))
		}
	}
	return nil
}

func nameThreads(name string) error {
	raw, err := unix.BytePtrFromString(name)
	if err != nil {
		return err
	}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_NAME, uintptr(unsafe.Pointer(raw)), 0)
	runtime.KeepAlive(raw)
	if errno != 0 {
		return errno
	}
	return nil
}

func mknod() error {
	dir, err := os.MkdirTemp("", "feature")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "null")
	err = unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3)))
	return errors.Join(err, os.RemoveAll(dir))
}
