//go:build linux

package install

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Locate returns where the file path of the tree at dir lies, seen from this
// system: an absolute link in an image leads into the image, and never to this
// system's own files. The error wraps fs.ErrNotExist if there is none.
func Locate(dir, path string) (string, error) {
	r := &root{dir: filepath.Clean(dir)}
	for range maxLinks {
		before, name := path[:strings.LastIndex(path, "/")+1], path[strings.LastIndex(path, "/")+1:]
		if name == "" || name == "." || name == ".." {
			return "", &fs.PathError{Op: "open", Path: path, Err: unix.EISDIR}
		}
		parent, err := r.open(before) // not cleaned: ".." behind a link is the link's
		if err != nil {
			return "", refusedButMissing(err)
		}
		var st unix.Stat_t
		err = unix.Fstatat(parent.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		at, lerr := os.Readlink(fdPath(parent))
		parent.close()
		switch {
		case err != nil:
			return "", &fs.PathError{Op: "stat", Path: path, Err: err}
		case lerr != nil:
			return "", lerr
		case st.Mode&unix.S_IFMT != unix.S_IFLNK:
			return filepath.Join(at, name), nil
		}
		target, err := os.Readlink(filepath.Join(at, name))
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(target) {
			target = before + target
		}
		path = target
	}
	return "", &fs.PathError{Op: "open", Path: path, Err: unix.ELOOP}
}

func refusedButMissing(err error) error {
	if r := refused(err); !os.IsNotExist(err) {
		return r
	}
	return err
}

// Enrolled reports whether the state directory of the tree at dir holds an
// identity.
func Enrolled(dir, state string) bool {
	r := &root{dir: filepath.Clean(dir)}
	names, err := r.names(state)
	return err == nil && slices.Contains(names, "identity.json")
}
