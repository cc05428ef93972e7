//go:build linux

package install

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// root is the tree that is changed: "/" or the directory of an image. Paths
// are those of the system in the tree, "/etc/passwd".
type root struct {
	dir string
	// before is called ahead of each change; an error stops it. Tests stop
	// everywhere with it.
	before func(op, path string) error
}

// node is a directory held by a descriptor.
type node struct {
	fd int
	st unix.Stat_t
}

func (n node) close() { _ = unix.Close(n.fd) } // nothing was written through it

// maxLinks bounds the links on the way to a path, as the kernel does.
const maxLinks = 40

// unsafeError is a refusal because of a path's owner, mode or kind.
type unsafeError struct {
	path, problem, fix string
}

func (e *unsafeError) Error() string { return e.path + " " + e.problem }

// trusted reports whether uid may own what we go through: root, or whoever
// builds an image in a tree of their own.
func trusted(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }

// open returns the directory path, coming from the top one name at a time.
// Links are followed inside the tree, and only those that root made in a
// directory that only root writes. fs.ErrNotExist if a part is missing.
func (r *root) open(path string) (node, error) {
	fd, err := unix.Open(r.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return node{}, &fs.PathError{Op: "open", Path: r.dir, Err: err}
	}
	stack := []node{{fd: fd}}
	defer func() {
		for _, n := range stack {
			n.close()
		}
	}()
	if err := unix.Fstat(fd, &stack[0].st); err != nil {
		return node{}, &fs.PathError{Op: "stat", Path: r.dir, Err: err}
	}
	if err := passable("/", stack[0].st); err != nil {
		return node{}, err
	}
	rest, at, links := split(path), []string{}, 0
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		if name == "." {
			continue
		}
		if name == ".." {
			if len(stack) > 1 {
				stack[len(stack)-1].close()
				stack, at = stack[:len(stack)-1], at[:len(at)-1]
			}
			continue
		}
		here := "/" + strings.Join(append(at[:len(at):len(at)], name), "/")
		next, err := step(stack[len(stack)-1], name, here)
		if err != nil {
			return node{}, err
		}
		if next.st.Mode&unix.S_IFMT != unix.S_IFLNK {
			stack, at = append(stack, next), append(at, name)
			continue
		}
		target, err := readLink(next, here)
		next.close()
		if err != nil {
			return node{}, err
		}
		if links++; links > maxLinks {
			return node{}, &fs.PathError{Op: "open", Path: here, Err: unix.ELOOP}
		}
		rest = append(split(target), rest...)
		if filepath.IsAbs(target) {
			for _, n := range stack[1:] {
				n.close()
			}
			stack, at = stack[:1], nil
		}
	}
	last := stack[len(stack)-1]
	stack = stack[:len(stack)-1]
	return last, nil
}

func split(path string) []string {
	return strings.FieldsFunc(path, func(c rune) bool { return c == '/' })
}

// step opens one name below parent, without following it.
func step(parent node, name, path string) (node, error) {
	fd, err := unix.Openat(parent.fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return node{}, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	n := node{fd: fd}
	if err := unix.Fstat(fd, &n.st); err != nil {
		n.close()
		return node{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if err := passable(path, n.st); err != nil {
		n.close()
		return node{}, err
	}
	return n, nil
}

// passable says whether names below a directory, or the target of a link, can
// be trusted: an attacker who made it before us must not choose where root
// writes.
func passable(path string, st unix.Stat_t) error {
	refuse := func(fix, format string, args ...any) error {
		return &unsafeError{path: path, problem: fmt.Sprintf(format, args...), fix: fix}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		if !trusted(st.Uid) {
			return refuse("sudo rm "+path, "is a symbolic link of uid %d", st.Uid)
		}
		return nil
	case unix.S_IFDIR:
	default:
		return refuse("ls -l "+path, "is no directory")
	}
	if !trusted(st.Uid) {
		return refuse("ls -ld "+path+"   # then: sudo chown root "+path, "is a directory of uid %d, who could exchange what is in it", st.Uid)
	}
	if st.Mode&0o022 != 0 {
		return refuse("sudo chmod go-w "+path, "can be written by others, mode %04o", st.Mode&0o7777)
	}
	return nil
}

func readLink(n node, path string) (string, error) {
	buf := make([]byte, unix.PathMax)
	size, err := unix.Readlinkat(n.fd, "", buf)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: path, Err: err}
	}
	return string(buf[:size]), nil
}

// found is what stands at a path now.
type found struct {
	st      unix.Stat_t
	target  string // of a link
	content []byte // of a regular file, at most readLimit
}

func (f *found) kind() uint32 { return f.st.Mode & unix.S_IFMT }

// readLimit is more than any file that we write has, but for the binary.
const readLimit = 64 << 20

// look returns what stands at path; nil if nothing does. It reads files.
func (r *root) look(path string) (*found, error) {
	parent, err := r.open(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // nothing there is an answer
	}
	if err != nil {
		return nil, err
	}
	defer parent.close()
	f := &found{}
	name := filepath.Base(path)
	err = unix.Fstatat(parent.fd, name, &f.st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // as above
	}
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	switch f.kind() {
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		size, err := unix.Readlinkat(parent.fd, name, buf)
		if err != nil {
			return nil, &fs.PathError{Op: "readlink", Path: path, Err: err}
		}
		f.target = string(buf[:size])
	case unix.S_IFREG:
		f.content, err = readAt(parent, name, path)
	}
	return f, err
}

func readAt(parent node, name, path string) ([]byte, error) {
	fd, err := unix.Openat(parent.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	file := os.NewFile(uintptr(fd), path)
	defer func() { _ = file.Close() }() // only read
	return io.ReadAll(io.LimitReader(file, readLimit))
}

// readOnly reports whether path, or what it will be made in, cannot be written.
func (r *root) readOnly(path string) bool {
	for ; ; path = filepath.Dir(path) {
		n, err := r.open(path)
		if err != nil {
			if path == "/" {
				return false
			}
			continue
		}
		var st unix.Statfs_t
		err = unix.Fstatfs(n.fd, &st)
		n.close()
		return err == nil && st.Flags&unix.ST_RDONLY != 0
	}
}
