//go:build linux

package linux

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"

	"postern/platform"
)

// WriteFile replaces path atomically and durably. What stands there already
// must pass Check: a file that others could read is evidence and is not
// replaced in silence.
func (h *Host) WriteFile(path string, content []byte, a platform.Access) error {
	p, err := h.policy(a)
	if err != nil {
		return err
	}
	parent, base, err := h.parent(path)
	if err != nil {
		return err
	}
	defer parent.close()
	if err := h.replaceable(parent, base, a); err != nil {
		return err
	}
	temp := temporaryName(base)
	if err := h.born(parent, temp, content, p, p.fileMode(), true); err != nil {
		return err
	}
	if err := unix.Renameat(parent.fd, temp, parent.fd, base); err != nil {
		_ = unix.Unlinkat(parent.fd, temp, 0) // ours; the rename's error says more
		return &fs.PathError{Op: "rename into", Path: filepath.Join(parent.path, base), Err: err}
	}
	return syncDir(parent)
}

// replaceable says whether base is missing or a file that passes Check.
func (h *Host) replaceable(parent *node, base string, a platform.Access) error {
	n, err := h.open(parent, base, unix.O_PATH, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer n.close()
	if n.st.Mode&unix.S_IFMT != unix.S_IFREG {
		return &platform.AccessError{Path: n.path, Want: a, Problem: "is a " + kind(n.st.Mode) + ", want a regular file"}
	}
	return h.verify(n, a)
}

// temporaryName cannot be guessed and does not end in .key, so that neither a
// client nor the sweep takes it for a challenge.
func temporaryName(base string) string { return "." + base + "." + rand.Text() + ".tmp" }

// born makes the file name with its content and access before anybody can see
// it: an unnamed file that is linked last. fs.ErrExist if the name is taken.
func (h *Host) born(parent *node, name string, content []byte, p policy, mode uint32, durable bool) error {
	if !h.without.tmpfile.Load() && !h.without.procFD.Load() {
		n, err := h.unnamed(parent, name)
		if err == nil {
			defer n.close()
			if err := fill(n, content, p, mode, durable); err != nil {
				return err
			}
			err = h.link(n, parent, name)
			if err == nil {
				return nil
			}
			if !errors.Is(err, unix.ENOENT) { // ENOENT: /proc is not mounted
				return &fs.PathError{Op: "link", Path: n.path, Err: err}
			}
			h.without.procFD.Store(true)
		} else if !noTmpfile(err) {
			return err
		} else {
			h.without.tmpfile.Store(true)
		}
	}
	return h.bornNamed(parent, name, content, p, mode, durable)
}

// link gives the unnamed file n a name in parent. Kernels before 6.10 link by
// descriptor only for those who may read everything; the way through /proc costs
// a fifth of a challenge file more. unix.ENOENT: /proc is not mounted.
func (h *Host) link(n, parent *node, name string) error {
	if !h.without.emptyPath.Load() {
		err := unix.Linkat(n.fd, "", parent.fd, name, unix.AT_EMPTY_PATH)
		if err == nil || err == unix.EEXIST {
			return err
		}
		h.without.emptyPath.Store(err == unix.ENOENT)
	}
	return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", n.fd), parent.fd, name, unix.AT_SYMLINK_FOLLOW)
}

// unnamed opens a file without a name in parent.
func (h *Host) unnamed(parent *node, name string) (*node, error) {
	n, err := h.open(parent, ".", unix.O_TMPFILE|unix.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	n.path = filepath.Join(parent.path, name)
	return n, nil
}

// noTmpfile reports whether err says that the file system has no O_TMPFILE:
// kernels before 3.11 take it for an attempt to write to a directory.
func noTmpfile(err error) bool { return isMissing(err) || errors.Is(err, unix.EISDIR) }

// bornNamed does the same where files must have names: a temporary one first.
func (h *Host) bornNamed(parent *node, name string, content []byte, p policy, mode uint32, durable bool) error {
	temp := temporaryName(name)
	n, err := h.open(parent, temp, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer n.close()
	err = fill(n, content, p, mode, durable)
	if err == nil {
		err = h.renameNew(parent, temp, name)
	}
	if err != nil {
		_ = unix.Unlinkat(parent.fd, temp, 0) // ours; the first error says more
	}
	return err
}

// fill writes content and gives the access, in that order of danger: private
// until the end.
func fill(n *node, content []byte, p policy, mode uint32, durable bool) error {
	for b := content; len(b) > 0; {
		w, err := ignoringEINTR(func() (int, error) { return unix.Write(n.fd, b) })
		if err != nil {
			return &fs.PathError{Op: "write", Path: n.path, Err: err}
		}
		b = b[w:]
	}
	if err := dress(n, p, mode); err != nil {
		return err
	}
	if !durable {
		return nil
	}
	if err := unix.Fsync(n.fd); err != nil {
		return &fs.PathError{Op: "sync", Path: n.path, Err: err}
	}
	return nil
}

// renameNew renames within parent and refuses to replace. Where renameat2 is
// missing it looks first; the directory is ours alone to write.
func (h *Host) renameNew(parent *node, from, to string) error {
	fail := func(err error) error {
		return &fs.PathError{Op: "rename into", Path: filepath.Join(parent.path, to), Err: err}
	}
	if !h.without.renameat2.Load() {
		err := unix.Renameat2(parent.fd, from, parent.fd, to, unix.RENAME_NOREPLACE)
		if err == nil {
			return nil
		}
		if !isMissing(err) {
			return fail(err)
		}
		h.without.renameat2.Store(true)
	}
	var st unix.Stat_t
	err := unix.Fstatat(parent.fd, to, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil {
		return fail(unix.EEXIST)
	}
	if err != unix.ENOENT {
		return fail(err)
	}
	if err := unix.Renameat(parent.fd, from, parent.fd, to); err != nil {
		return fail(err)
	}
	return nil
}
