//go:build linux

package install

import (
	"errors"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// names lists a directory, sorted; nothing if it is missing. The directory may
// be the agent's: it is only listed.
func (r *root) names(path string) ([]string, error) {
	f, err := r.look(path)
	if err != nil || f == nil || f.kind() != unix.S_IFDIR {
		return nil, err
	}
	parent, name, err := r.parent(path)
	if err != nil {
		return nil, err
	}
	defer parent.close()
	fd, err := unix.Openat(parent.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	dir := os.NewFile(uintptr(fd), path)
	names, err := dir.Readdirnames(-1)
	slices.Sort(names)
	return names, errors.Join(err, dir.Close())
}
