//go:build windows

package windows

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/windows"

	"postern/platform"
)

// dir is a directory that is held open; the handle also keeps it from being
// renamed or deleted.
type dir struct {
	h      *Host
	access platform.Access
	node   *node
	mu     sync.RWMutex
}

// OpenDir opens and holds a directory.
func (h *Host) OpenDir(path string, a platform.Access) (platform.Dir, error) {
	path, err := cleanPath(path)
	if err != nil {
		return nil, err
	}
	held, err := h.parents(path)
	if err != nil {
		return nil, err
	}
	defer held.close()
	n, err := openNode(path, create{rights: rightsToLook | windows.FILE_LIST_DIRECTORY, share: sharePinned, disposition: windows.OPEN_EXISTING})
	if err != nil {
		return nil, err
	}
	if !n.isDir() {
		n.close()
		return nil, &platform.AccessError{Path: path, Want: a, Problem: "is a file, want a directory"}
	}
	if err := h.verify(n, a); err != nil {
		n.close()
		return nil, err
	}
	d := &dir{h: h, access: a, node: n}
	h.mu.Lock()
	h.held[path] = d
	h.mu.Unlock()
	return d, nil
}

// sameAsHeld refuses a directory that took the place of one that we hold.
func (h *Host) sameAsHeld(n *node) error {
	h.mu.Lock()
	d := h.held[n.path]
	h.mu.Unlock()
	if d == nil {
		return nil
	}
	return d.compare(n)
}

func (d *dir) compare(n *node) error {
	a, b := &n.info, &d.node.info
	if a.VolumeSerialNumber == b.VolumeSerialNumber && a.FileIndexHigh == b.FileIndexHigh && a.FileIndexLow == b.FileIndexLow {
		return nil
	}
	return &platform.AccessError{
		Path: d.node.path, Want: d.access,
		Problem: fmt.Sprintf("was replaced: it is now file %08x%08x, held is %08x%08x", a.FileIndexHigh, a.FileIndexLow, b.FileIndexHigh, b.FileIndexLow),
	}
}

// Path is the path that was opened.
func (d *dir) Path() string { return d.node.path }

func (d *dir) use(f func() error) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.node.handle == windows.InvalidHandle {
		return fmt.Errorf("directory: %w", fs.ErrClosed)
	}
	return f()
}

// inPlace compares the path with what is held.
func (d *dir) inPlace() error {
	n, err := openNode(d.node.path, create{rights: windows.FILE_READ_ATTRIBUTES, share: shareAll, disposition: windows.OPEN_EXISTING})
	if err != nil {
		return &platform.AccessError{Path: d.node.path, Want: d.access, Problem: "cannot be reached: " + err.Error()}
	}
	defer n.close()
	return d.compare(n)
}

// Create makes the file name with the content and the directory's access.
func (d *dir) Create(name string, content []byte) error {
	if err := plainName(name); err != nil {
		return err
	}
	return d.use(func() error {
		if err := d.inPlace(); err != nil {
			return err
		}
		p, err := d.h.policy(d.access)
		if err != nil {
			return err
		}
		return born(filepath.Join(d.node.path, name), content, p.sddl(false), false)
	})
}

// plainName refuses names that would leave the directory, name a stream or a
// device, or change on the way.
func plainName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name, "\\/:*?\"<>|\x00") ||
		strings.TrimRight(name, ". ") != name || !filepath.IsLocal(name) {
		return fmt.Errorf("%q is not a file name", name)
	}
	return nil
}

// openEntry opens one name for looking, and with DELETE if it is to go.
func (d *dir) openEntry(name string, rights uint32) (n *node, ours bool, err error) {
	n, err = openNode(filepath.Join(d.node.path, name), create{rights: rightsToLook | rights, share: shareAll, disposition: windows.OPEN_EXISTING})
	if err != nil {
		return nil, false, err
	}
	text, err := n.descriptor()
	if err != nil {
		n.close()
		return nil, false, err
	}
	sd, err := parseSDDL(text)
	ours = err == nil && sd.owner == d.h.self && !n.isDir() && !n.isLink() && n.info.NumberOfLinks == 1
	return n, ours, nil
}

// Remove deletes a regular file that our account owns, by handle.
func (d *dir) Remove(name string) error {
	if err := plainName(name); err != nil {
		return err
	}
	return d.use(func() error {
		n, ours, err := d.openEntry(name, windows.DELETE)
		if err != nil {
			return err
		}
		defer n.close()
		if !ours {
			return &platform.AccessError{Path: n.path, Want: d.access, Problem: "is not a file of ours: left alone"}
		}
		return n.remove()
	})
}

// Names lists all entries.
func (d *dir) Names() ([]platform.Entry, error) {
	var entries []platform.Entry
	err := d.use(func() error {
		list, err := os.ReadDir(d.node.path) // the held handle pins what the path means
		if err != nil {
			return err
		}
		for _, e := range list {
			n, ours, err := d.openEntry(e.Name(), 0)
			if errors.Is(err, fs.ErrNotExist) {
				continue // it left while we looked
			}
			if err != nil {
				entries = append(entries, platform.Entry{Name: e.Name()}) // a stranger's, closed to us
				continue
			}
			entries = append(entries, platform.Entry{Name: e.Name(), Ours: ours, Birth: time.Unix(0, n.info.CreationTime.Nanoseconds()).UTC()})
			n.close()
		}
		return nil
	})
	return entries, err
}

// Check compares the held directory with its path and verifies access and
// every parent.
func (d *dir) Check() error {
	return d.use(func() error {
		if err := d.inPlace(); err != nil {
			return err
		}
		return d.h.Check(d.node.path, d.access)
	})
}

// Close releases the directory; a second call does nothing.
func (d *dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.node.handle == windows.InvalidHandle {
		return nil
	}
	d.h.mu.Lock()
	if d.h.held[d.node.path] == d {
		delete(d.h.held, d.node.path)
	}
	d.h.mu.Unlock()
	d.node.close()
	return nil
}
