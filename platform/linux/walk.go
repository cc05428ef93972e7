//go:build linux

package linux

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"postern/platform"
)

// node is an object that is held by a descriptor, with what fstat said of it.
// The descriptor may be O_PATH: good for names below it and for fstat only.
type node struct {
	fd   int
	path string
	st   unix.Stat_t
}

func (n *node) close() {
	if n.fd >= 0 {
		_ = unix.Close(n.fd) // nothing was written through it
		n.fd = -1
	}
}

// cleanPath refuses what is not absolute: a relative path means something else
// after the next chdir.
func cleanPath(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("path %q is not absolute", path)
	}
	if strings.ContainsRune(path, 0) {
		return "", fmt.Errorf("path %q contains a zero byte", path)
	}
	return filepath.Clean(path), nil
}

// openStep opens one name below dirfd without following a link. A symbolic
// link opened with O_PATH comes back as itself, for the caller to name.
// openat2 is used where the kernel has it and no seccomp filter hides it; on a
// single name O_NOFOLLOW refuses the same, so the older call is not weaker.
func (h *Host) openStep(dirfd int, name string, flags int, mode uint32) (int, error) {
	flags |= unix.O_CLOEXEC | unix.O_NOFOLLOW
	if !h.without.openat2.Load() {
		how := &unix.OpenHow{
			Flags:   uint64(flags), //nolint:gosec // bits of open(2)
			Mode:    uint64(mode),
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
		}
		fd, err := ignoringEINTR(func() (int, error) { return unix.Openat2(dirfd, name, how) })
		switch {
		case errors.Is(err, unix.ENOSYS):
			h.without.openat2.Store(true)
		case errors.Is(err, unix.EPERM): // perhaps a seccomp filter: ask the older call, which knows
		default:
			return fd, err
		}
	}
	return ignoringEINTR(func() (int, error) { return unix.Openat(dirfd, name, flags, mode) })
}

func ignoringEINTR(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// open is openStep followed by fstat.
func (h *Host) open(parent *node, name string, flags int, mode uint32) (*node, error) {
	path := filepath.Join(parent.path, name)
	fd, err := h.openStep(parent.fd, name, flags, mode)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	n := &node{fd: fd, path: path}
	if err := unix.Fstat(fd, &n.st); err != nil {
		n.close()
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return n, nil
}

// parent opens the directory that holds path, coming from the root one name at
// a time, and refuses it when anybody but root and us could exchange what lies
// on the way (TestParentsThatOthersCanWriteAreRefused). The node is O_PATH.
func (h *Host) parent(path string) (*node, string, error) {
	path, err := cleanPath(path)
	if err != nil {
		return nil, "", err
	}
	if path == "/" {
		return nil, "", fmt.Errorf("%s has no parent directory", path)
	}
	at, err := h.root()
	if err != nil {
		return nil, "", err
	}
	names := strings.Split(path[1:], "/")
	for _, name := range names[:len(names)-1] {
		next, err := h.open(at, name, unix.O_PATH, 0)
		at.close()
		if err != nil {
			return nil, "", err
		}
		if err := h.parentSafe(next); err != nil {
			next.close()
			return nil, "", err
		}
		at = next
	}
	if err := h.sameAsHeld(at); err != nil {
		at.close()
		return nil, "", err
	}
	return at, names[len(names)-1], nil
}

func (h *Host) root() (*node, error) {
	fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/", Err: err}
	}
	n := &node{fd: fd, path: "/"}
	if err := unix.Fstat(fd, &n.st); err != nil {
		n.close()
		return nil, &fs.PathError{Op: "stat", Path: "/", Err: err}
	}
	if err := h.parentSafe(n); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// parentSafe says whether names below the directory n can be trusted to stay.
// The mode is enough: the group bits of a directory with an ACL are its mask,
// so without the write bit there no entry can grant it. A sticky bit does not
// help: whoever comes first owns the name.
func (h *Host) parentSafe(n *node) error {
	refuse := func(problem, fix string) error {
		return &platform.AccessError{Path: n.path, Want: platform.Public, Problem: problem, Fix: fix}
	}
	switch n.st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
	case unix.S_IFLNK:
		return refuse("is a symbolic link on the way; configure the path that it leads to", "readlink -f "+n.path)
	default:
		return refuse(fmt.Sprintf("is a %s, want a directory", kind(n.st.Mode)), "")
	}
	if n.st.Uid != 0 && n.st.Uid != uid() {
		return refuse(fmt.Sprintf("is a parent directory owned by uid %d, want root or uid %d", n.st.Uid, uid()),
			"chown root "+n.path)
	}
	if sticky := h.sticky && n.st.Uid == 0 && n.st.Mode&unix.S_ISVTX != 0; n.st.Mode&0o022 != 0 && !sticky {
		return refuse(fmt.Sprintf("is a parent directory that others may write, mode %04o", n.st.Mode&0o7777),
			fixWritable(n))
	}
	return nil
}

// fixWritable is the cure for a parent that others may write. Nobody should
// take the write bits of a shared directory away; one above our own place, as a
// tmpfs with the mode that it has by default, is not meant to be shared.
func fixWritable(n *node) string {
	if n.st.Mode&unix.S_ISVTX != 0 && !strings.HasPrefix(DefaultStateDir, n.path+"/") {
		return "mkdir -m 0700 " + DefaultStateDir + "   # and use that: nothing below " + n.path + " is safe from others"
	}
	return "chmod go-w " + n.path
}

// kind names the type of a file in words.
func kind(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "regular file"
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFLNK:
		return "symbolic link"
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFSOCK:
		return "socket"
	case unix.S_IFBLK, unix.S_IFCHR:
		return "device"
	}
	return "file of an unknown type"
}

// isMissing reports whether err says that the call or flag is not there, as
// opposed to being refused.
func isMissing(err error) bool {
	return errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL)
}
