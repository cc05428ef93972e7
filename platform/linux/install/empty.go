//go:build linux

package install

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
)

// empty removes what lies in a directory of ours, whatever it is, without
// following a link: the agent's account could have made one.
func (r *root) empty(path string) error {
	return r.at("empty", path, func(parent node, name string) error {
		dir, err := os.OpenRoot(fdPath(parent))
		if err != nil {
			return err
		}
		defer func() { _ = dir.Close() }()
		entries, err := fs.ReadDir(dir.FS(), name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := dir.RemoveAll(name + "/" + e.Name()); err != nil {
				return err
			}
		}
		return nil
	})
}

// fdPath names an open directory by its descriptor.
func fdPath(n node) string { return "/proc/self/fd/" + strconv.Itoa(n.fd) }
