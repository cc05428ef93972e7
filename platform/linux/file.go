//go:build linux

package linux

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"postern/platform"
)

// Check verifies owner, access, type, link count and every parent of an
// existing file or directory. The literal token path may be a link of root's;
// what it leads to is then checked. Errors: *platform.AccessError,
// fs.ErrNotExist.
func (h *Host) Check(path string, a platform.Access) error {
	n, err := h.find(path)
	if err != nil {
		return err
	}
	defer n.close()
	return h.verify(n, a)
}

// find opens path O_PATH, after its parents were found safe.
func (h *Host) find(path string) (*node, error) {
	if path == h.dirs.TokensLiteral {
		target, err := h.literalTarget()
		if err != nil {
			return nil, err
		}
		path = target
	}
	parent, base, err := h.parent(path)
	if err != nil {
		return nil, err
	}
	defer parent.close()
	return h.open(parent, base, unix.O_PATH, 0)
}

// Secure makes the directory path with access a if it is missing and verifies
// it otherwise. A new directory gets its name only when its access is right.
func (h *Host) Secure(path string, a platform.Access) error {
	p, err := h.policy(a)
	if err != nil {
		return err
	}
	parent, base, err := h.parent(path)
	if err != nil {
		return err
	}
	defer parent.close()
	n, err := h.open(parent, base, unix.O_PATH, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err := h.makeDir(parent, base, p); err != nil {
			return err
		}
		n, err = h.open(parent, base, unix.O_PATH, 0)
	}
	if err != nil {
		return err
	}
	defer n.close()
	if n.st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return &platform.AccessError{Path: n.path, Want: a, Problem: "is a " + kind(n.st.Mode) + ", want a directory"}
	}
	return h.verify(n, a)
}

// OpenFile opens a regular file without following a link in any component,
// after the verification of Check; O_CREATE makes a missing one with access a,
// O_TRUNC empties it only after it was verified. It never blocks on a fifo and
// never opens a device.
func (h *Host) OpenFile(path string, flag int, a platform.Access) (*os.File, error) {
	p, err := h.policy(a)
	if err != nil {
		return nil, err
	}
	parent, base, err := h.parent(path)
	if err != nil {
		return nil, err
	}
	defer parent.close()
	for range 3 { // somebody may make or remove the file between our two looks
		if flag&os.O_EXCL == 0 {
			f, err := h.openExisting(parent, base, flag, a)
			if err == nil || !errors.Is(err, fs.ErrNotExist) || flag&os.O_CREATE == 0 {
				return f, err
			}
		}
		f, err := h.createFile(parent, base, flag, p)
		if err == nil || !errors.Is(err, fs.ErrExist) || flag&os.O_EXCL != 0 {
			return f, err
		}
	}
	return nil, fmt.Errorf("open %s: it appears and disappears", path)
}

// openExisting looks before it opens, so that a device is never opened, and
// verifies what it opened, which is what counts.
func (h *Host) openExisting(parent *node, base string, flag int, a platform.Access) (*os.File, error) {
	look, err := h.open(parent, base, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	defer look.close()
	if look.st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, &platform.AccessError{Path: look.path, Want: a, Problem: "is a " + kind(look.st.Mode) + ", want a regular file"}
	}
	n, err := h.open(parent, base, flag&^(os.O_CREATE|os.O_EXCL|os.O_TRUNC)|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if n.st.Mode&unix.S_IFMT != unix.S_IFREG {
		n.close()
		return nil, &platform.AccessError{Path: n.path, Want: a, Problem: "is a " + kind(n.st.Mode) + ", want a regular file"}
	}
	if err := h.verify(n, a); err != nil {
		n.close()
		return nil, err
	}
	if flag&os.O_TRUNC != 0 {
		if err := unix.Ftruncate(n.fd, 0); err != nil {
			n.close()
			return nil, &fs.PathError{Op: "truncate", Path: n.path, Err: err}
		}
	}
	return n.file()
}

// createFile makes a file that is private until it has its final access.
func (h *Host) createFile(parent *node, base string, flag int, p policy) (*os.File, error) {
	n, err := h.open(parent, base, flag&^os.O_TRUNC|os.O_CREATE|os.O_EXCL|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	if err := dress(n, p, p.fileMode()); err != nil {
		n.close()
		_ = unix.Unlinkat(parent.fd, base, 0) // ours, empty, and the error says more
		return nil, err
	}
	if err := syncDir(parent); err != nil {
		n.close()
		return nil, err
	}
	return n.file()
}

// file hands the descriptor over to an os.File in blocking mode.
func (n *node) file() (*os.File, error) {
	if err := unix.SetNonblock(n.fd, false); err != nil {
		n.close()
		return nil, &fs.PathError{Op: "open", Path: n.path, Err: err}
	}
	f := os.NewFile(uintptr(n.fd), n.path)
	n.fd = -1
	return f, nil
}

// dress gives what we just made its access: no inherited ACL, the readers'
// group if it differs (a confined process may not have chown), and last the
// mode, so that it is never wider than it will be.
func dress(n *node, p policy, mode uint32) error {
	for _, attr := range []string{aclAccess, aclDefault} {
		if err := unix.Fremovexattr(n.fd, attr); err != nil && err != unix.ENODATA && err != unix.EOPNOTSUPP && err != unix.EINVAL {
			return &fs.PathError{Op: "remove inherited acl of", Path: n.path, Err: err}
		}
	}
	if p.gid >= 0 && int64(n.st.Gid) != p.gid {
		if err := unix.Fchown(n.fd, -1, int(p.gid)); err != nil {
			return &fs.PathError{Op: fmt.Sprintf("give to group %d", p.gid), Path: n.path, Err: err}
		}
	}
	if err := unix.Fchmod(n.fd, mode); err != nil {
		return &fs.PathError{Op: "chmod", Path: n.path, Err: err}
	}
	return nil
}

// makeDir makes a directory under a temporary name and renames it when its
// access is right, so that a kill in between leaves no directory to refuse.
func (h *Host) makeDir(parent *node, base string, p policy) error {
	temp := temporaryName(base)
	if err := unix.Mkdirat(parent.fd, temp, 0o700); err != nil {
		return &fs.PathError{Op: "make directory", Path: parent.path + "/" + base, Err: err}
	}
	err := h.dressDir(parent, temp, p)
	if err == nil {
		err = h.renameNew(parent, temp, base)
	}
	if err != nil {
		_ = unix.Unlinkat(parent.fd, temp, unix.AT_REMOVEDIR) // empty and ours
		if errors.Is(err, fs.ErrExist) {
			return nil // another process made it; it is verified like any other
		}
		return err
	}
	return syncDir(parent)
}

func (h *Host) dressDir(parent *node, name string, p policy) error {
	n, err := h.open(parent, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer n.close()
	return dress(n, p, p.dirMode())
}

// syncDir makes names in n durable. n may be O_PATH, which cannot be synced.
func syncDir(n *node) error {
	fd, err := unix.Openat(n.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Fsync(fd)
		_ = unix.Close(fd) // read only
	}
	if err != nil && err != unix.EINVAL { // EINVAL: a file system without it
		return &fs.PathError{Op: "sync", Path: n.path, Err: err}
	}
	return nil
}
