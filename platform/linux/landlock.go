//go:build linux

package linux

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"postern/platform"
)

// Rights on files, by the Landlock ABI that knows them (landlock(7)).
const (
	landlockRead = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR

	landlockWrite = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
		unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_REFER

	landlockABI1 = unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1 // all up to MAKE_SYM

	// landlockFile are the rights that a rule for a file, not a directory, may name.
	landlockFile = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
)

// handledByABI are the rights that can be taken away; a newer kernel is used
// as far as we know it.
func handledByABI(abi int) (files, net uint64) {
	files = landlockABI1
	if abi >= 2 {
		files |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi >= 3 {
		files |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= 4 {
		net = unix.LANDLOCK_ACCESS_NET_BIND_TCP
	}
	if abi >= 5 {
		files |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	return files, net
}

// Confine is step 5 of firmware-notes/attack-surface.md: Landlock, as far as this kernel
// has it. From then on only the directories of Dirs can be written, only what
// the agent reads anyway can be read, nothing but its own binary can be
// executed, and no further TCP address can be bound; open descriptors stay.
// Under systemd, whose filter hides Landlock, its own sandbox does the same.
func (h *Host) Confine(c platform.Confinement) (string, error) {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		if h.init.systemd {
			return "provided by systemd", nil
		}
		return "none", fmt.Errorf("landlock: %w", errno)
	}
	if err := h.landlock(int(abi), c); err != nil {
		return "none", fmt.Errorf("landlock: %w", err)
	}
	return fmt.Sprintf("landlock %d", abi), nil
}

func (h *Host) landlock(abi int, c platform.Confinement) error {
	files, net := handledByABI(abi)
	attr := unix.LandlockRulesetAttr{Handled_access_fs: files, Handled_access_net: net}
	size := unsafe.Sizeof(attr.Handled_access_fs)
	if abi >= 4 {
		size += unsafe.Sizeof(attr.Handled_access_net)
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0) //nolint:gosec // the call has no wrapper
	runtime.KeepAlive(&attr)
	if errno != 0 {
		return errno
	}
	defer func() { _ = unix.Close(int(fd)) }() // the rules outlive it
	for _, r := range h.rules(c) {
		if err := addRule(int(fd), r.path, r.rights&files); err != nil {
			return fmt.Errorf("%s: %w", r.path, err)
		}
	}
	if err := noNewPrivileges(); err != nil { // the kernel asks for it first
		return err
	}
	return onAllThreads(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0)
}

// rule lets the rights be used on path and below it.
type rule struct {
	path   string
	rights uint64
}

// rules lists what stays allowed. The token directory may be replaced while we
// run (OS4), so the directories that hold it and its literal name are open,
// too: who may write there is the file mode's business.
func (h *Host) rules(c platform.Confinement) []rule {
	var list []rule
	write := append([]string{
		h.dirs.State, h.dirs.Runtime, h.dirs.Tokens,
		filepath.Dir(h.dirs.Tokens), filepath.Dir(h.dirs.TokensLiteral),
	}, c.ReadWrite...)
	for _, p := range write {
		if p != "/" {
			list = append(list, rule{p, landlockRead | landlockWrite})
		}
	}
	read := append([]string{
		h.dirs.Config, filepath.Dir(h.dirs.Config),
		"/proc", "/sys", "/etc", "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager",
		"/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/usr/share/zoneinfo", "/usr/lib/ssl",
		"/dev/urandom", "/dev/null",
	}, c.Read...)
	for _, p := range read {
		if p != "/" {
			list = append(list, rule{p, landlockRead})
		}
	}
	list = append(list, rule{"/dev/null", unix.LANDLOCK_ACCESS_FS_WRITE_FILE})
	if exe, err := os.Executable(); err == nil {
		list = append(list, rule{exe, landlockRead | unix.LANDLOCK_ACCESS_FS_EXECUTE})
	}
	return list
}

// addRule passes over what does not exist.
func addRule(ruleset int, path string, rights uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EACCES) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }() // the rule outlives it
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= landlockFile
	}
	if rights == 0 {
		return nil
	}
	attr := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)} //nolint:gosec // a descriptor has 31 bits
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&attr)), 0, 0, 0) //nolint:gosec // the call has no wrapper
	runtime.KeepAlive(&attr)
	if errno != 0 {
		return errno
	}
	return nil
}
