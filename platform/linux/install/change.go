//go:build linux

package install

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// owner is who gets what is made; -1 leaves it as it is born.
type owner struct{ uid, gid int }

// at calls do with the directory that holds path, unless the run was stopped.
func (r *root) at(op, path string, do func(parent node, name string) error) error {
	if r.before != nil {
		if err := r.before(op, path); err != nil {
			return err
		}
	}
	parent, err := r.open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer parent.close()
	if err := do(parent, filepath.Base(path)); err != nil {
		return &fs.PathError{Op: op, Path: path, Err: err}
	}
	return syncDir(parent)
}

func syncDir(n node) error {
	fd, err := unix.Openat(n.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.Fsync(fd)
}

// temporary is the name of a file that is not finished. It is always the same:
// what a run that was stopped left is written over by the next.
func temporary(name string) string { return "." + name + ".postern-new" }

func temporaryPath(path string) string {
	return filepath.Join(filepath.Dir(path), temporary(filepath.Base(path)))
}

// mkdir makes a directory with its mode and owner before it has its name. One
// that is there, since a run before was stopped, is given both.
func (r *root) mkdir(path string, mode uint32, o owner) error {
	if r.isDirectory(path) {
		return r.give(path, mode, o)
	}
	return r.at("make directory", path, func(parent node, name string) error {
		temp := temporary(name)
		err := unix.Mkdirat(parent.fd, temp, 0o700)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := r.dress(parent, temp, path, mode, o); err != nil {
			return err
		}
		return unix.Renameat(parent.fd, temp, parent.fd, name) // into nothing, or an empty directory
	})
}

// dress gives mode and owner to a directory, by descriptor.
func (r *root) dress(parent node, name, path string, mode uint32, o owner) error {
	fd, err := unix.Openat(parent.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if r.before != nil {
		if err := r.before("give", path); err != nil {
			return err
		}
	}
	return fit(fd, mode, o)
}

func fit(fd int, mode uint32, o owner) error {
	if o.uid >= 0 || o.gid >= 0 {
		if err := unix.Fchown(fd, o.uid, o.gid); err != nil {
			return err
		}
	}
	return unix.Fchmod(fd, mode)
}

// give changes mode and owner of an existing directory.
func (r *root) give(path string, mode uint32, o owner) error {
	return r.at("give", path, func(parent node, name string) error {
		fd, err := unix.Openat(parent.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		return fit(fd, mode, o)
	})
}

// write replaces path atomically and durably.
func (r *root) write(path string, content []byte, mode uint32, o owner) error {
	return r.at("write", path, func(parent node, name string) error {
		temp := temporary(name)
		if err := unix.Unlinkat(parent.fd, temp, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		fd, err := unix.Openat(parent.fd, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		file := os.NewFile(uintptr(fd), path)
		_, err = file.Write(content)
		if err == nil {
			err = fit(fd, mode, o)
		}
		if err == nil {
			err = file.Sync()
		}
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
		if r.before != nil {
			if err := r.before("rename", path); err != nil {
				return err
			}
		}
		return unix.Renameat(parent.fd, temp, parent.fd, name)
	})
}

// link makes or replaces a symbolic link atomically.
func (r *root) link(path, target string) error {
	return r.at("link", path, func(parent node, name string) error {
		temp := temporary(name)
		if err := unix.Unlinkat(parent.fd, temp, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := unix.Symlinkat(target, parent.fd, temp); err != nil {
			return err
		}
		return unix.Renameat(parent.fd, temp, parent.fd, name)
	})
}

// remove takes a file, a link or an empty directory away; what is missing is
// no error, a directory that is not empty stays.
func (r *root) remove(path string, directory bool) error {
	err := r.at("remove", path, func(parent node, name string) error {
		flags := 0
		if directory {
			flags = unix.AT_REMOVEDIR
		}
		err := unix.Unlinkat(parent.fd, name, flags)
		if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EBUSY) {
			return nil
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
