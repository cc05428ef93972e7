//go:build windows

package windows

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/windows"

	"postern/platform"
)

// Check verifies owner, access list, type, link count and every parent of an
// existing file or directory. Errors: *platform.AccessError, fs.ErrNotExist.
func (h *Host) Check(path string, a platform.Access) error {
	held, err := h.parents(path)
	if err != nil {
		return err
	}
	defer held.close()
	n, err := openNode(path, create{rights: rightsToLook, share: shareAll, disposition: windows.OPEN_EXISTING})
	if err != nil {
		return err
	}
	defer n.close()
	return h.verify(n, a)
}

// Secure makes the directory path, with its descriptor in the create call, and
// verifies it if it was there already: ProgramData lets every user make
// folders and own them, so a folder that is already there is suspect.
func (h *Host) Secure(path string, a platform.Access) error {
	p, err := h.policy(a)
	if err != nil {
		return err
	}
	held, err := h.parents(path)
	if err != nil {
		return err
	}
	defer held.close()
	if err := makeDir(path, p.sddl(true)+labelHigh); err != nil {
		// A label above our own integrity is refused to an ordinary user.
		if errors.Is(err, windows.ERROR_PRIVILEGE_NOT_HELD) || errors.Is(err, fs.ErrPermission) {
			err = makeDir(path, p.sddl(true))
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	n, err := openNode(path, create{rights: rightsToLook, share: shareAll, disposition: windows.OPEN_EXISTING})
	if err != nil {
		return err
	}
	defer n.close()
	if !n.isDir() {
		return &platform.AccessError{Path: path, Want: a, Problem: "is a file, want a directory"}
	}
	return h.verify(n, a)
}

func makeDir(path, sddl string) error {
	sa, err := attributes(sddl)
	if err != nil {
		return err
	}
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return err
	}
	err = windows.CreateDirectory(name, sa)
	runtime.KeepAlive(sa)
	if err != nil {
		return &fs.PathError{Op: "make directory", Path: path, Err: err}
	}
	return nil
}

// OpenFile opens a regular file after the verification of Check; O_CREATE makes
// a missing one with access a, O_TRUNC empties it only after it was verified.
func (h *Host) OpenFile(path string, flag int, a platform.Access) (*os.File, error) {
	p, err := h.policy(a)
	if err != nil {
		return nil, err
	}
	held, err := h.parents(path)
	if err != nil {
		return nil, err
	}
	defer held.close()
	rights := rightsOf(flag)
	for range 3 { // somebody may make or remove the file between our two looks
		if flag&os.O_EXCL == 0 {
			f, err := h.openExisting(path, rights, flag, a)
			if err == nil || !errors.Is(err, fs.ErrNotExist) || flag&os.O_CREATE == 0 {
				return f, err
			}
		}
		n, err := openNode(path, create{rights: rights, share: shareAll, disposition: windows.CREATE_NEW, sddl: p.sddl(false)})
		if err == nil {
			return n.file(), nil
		}
		if !errors.Is(err, fs.ErrExist) || flag&os.O_EXCL != 0 {
			return nil, err
		}
	}
	return nil, fmt.Errorf("open %s: it appears and disappears", path)
}

func rightsOf(flag int) uint32 {
	rights := uint32(windows.READ_CONTROL)
	if flag&os.O_WRONLY == 0 {
		rights |= windows.GENERIC_READ
	}
	if flag&(os.O_WRONLY|os.O_RDWR) != 0 {
		rights |= windows.GENERIC_WRITE
	}
	return rights
}

func (h *Host) openExisting(path string, rights uint32, flag int, a platform.Access) (*os.File, error) {
	n, err := openNode(path, create{rights: rights, share: shareAll, disposition: windows.OPEN_EXISTING})
	if err != nil {
		return nil, err
	}
	if n.isDir() {
		n.close()
		return nil, &platform.AccessError{Path: path, Want: a, Problem: "is a directory, want a regular file"}
	}
	if err := h.verify(n, a); err != nil {
		n.close()
		return nil, err
	}
	if flag&os.O_TRUNC != 0 {
		if err := windows.Ftruncate(n.handle, 0); err != nil {
			n.close()
			return nil, &fs.PathError{Op: "truncate", Path: path, Err: err}
		}
	}
	return n.file(), nil
}

// WriteFile replaces path atomically: a file of another name, flushed, renamed
// over it by handle. What stands there already must pass Check.
func (h *Host) WriteFile(path string, content []byte, a platform.Access) error {
	p, err := h.policy(a)
	if err != nil {
		return err
	}
	held, err := h.parents(path)
	if err != nil {
		return err
	}
	defer held.close()
	if err := h.replaceable(path, a); err != nil {
		return err
	}
	return born(path, content, p.sddl(false), true)
}

func (h *Host) replaceable(path string, a platform.Access) error {
	n, err := openNode(path, create{rights: rightsToLook, share: shareAll, disposition: windows.OPEN_EXISTING})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer n.close()
	if n.isDir() {
		return &platform.AccessError{Path: path, Want: a, Problem: "is a directory, want a regular file"}
	}
	return h.verify(n, a)
}

// born writes a file under a temporary name that nobody else can open, and
// renames it by handle.
func born(path string, content []byte, sddl string, replace bool) error {
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+rand.Text()+".tmp")
	n, err := openNode(temp, create{
		rights:      windows.GENERIC_WRITE | windows.DELETE,
		share:       0,
		disposition: windows.CREATE_NEW,
		sddl:        sddl,
	})
	if err != nil {
		return err
	}
	defer n.close()
	err = n.write(content)
	if err == nil {
		err = n.rename(path, replace)
	}
	if err != nil {
		return errors.Join(err, n.remove())
	}
	return nil
}

func (n *node) write(content []byte) error {
	for len(content) > 0 {
		var done uint32
		if err := windows.WriteFile(n.handle, content, &done, nil); err != nil {
			return &fs.PathError{Op: "write", Path: n.path, Err: err}
		}
		content = content[done:]
	}
	if err := windows.FlushFileBuffers(n.handle); err != nil {
		return &fs.PathError{Op: "sync", Path: n.path, Err: err}
	}
	return nil
}

// FileSystem names the volume's file system; a network drive is remote.
func (h *Host) FileSystem(path string) (platform.FileSystem, error) {
	path, err := cleanPath(path)
	if err != nil {
		return platform.FileSystem{}, err
	}
	root, err := windows.UTF16PtrFromString(filepath.VolumeName(path) + `\`)
	if err != nil {
		return platform.FileSystem{}, err
	}
	var flags uint32
	name := make([]uint16, windows.MAX_PATH+1)
	if err := windows.GetVolumeInformation(root, nil, 0, nil, nil, &flags, &name[0], uint32(len(name))); err != nil { //nolint:gosec // a name is shorter than 64 KB
		return platform.FileSystem{}, &fs.PathError{Op: "volume of", Path: path, Err: err}
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(root, &free, nil, nil); err != nil {
		return platform.FileSystem{}, &fs.PathError{Op: "free space of", Path: path, Err: err}
	}
	kind := windows.GetDriveType(root)
	return platform.FileSystem{
		Type:     windows.UTF16ToString(name),
		Volatile: kind == windows.DRIVE_RAMDISK,
		Remote:   kind == windows.DRIVE_REMOTE,
		ReadOnly: flags&windows.FILE_READ_ONLY_VOLUME != 0,
		Free:     int64(min(free, 1<<63-1)),
	}, nil
}
