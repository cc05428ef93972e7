//go:build windows

package windows

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"golang.org/x/sys/windows"

	"postern/platform"
)

// node is an open handle and what the system says of it.
type node struct {
	handle windows.Handle
	path   string
	info   windows.ByHandleFileInformation
}

func (n *node) close() {
	if n.handle != windows.InvalidHandle {
		_ = windows.CloseHandle(n.handle) // a check or a flush came before
		n.handle = windows.InvalidHandle
	}
}

func (n *node) isDir() bool { return n.info.FileAttributes&windows.FILE_ATTRIBUTE_DIRECTORY != 0 }

func (n *node) isLink() bool {
	return n.info.FileAttributes&windows.FILE_ATTRIBUTE_REPARSE_POINT != 0
}

// create is what CreateFile needs to know besides the path.
type create struct {
	rights      uint32
	share       uint32
	disposition uint32
	sddl        string // for a new file
}

// Sharing. A handle without FILE_SHARE_DELETE keeps the thing from being
// renamed or deleted for as long as it is open.
const (
	sharePinned = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE
	shareAll    = sharePinned | windows.FILE_SHARE_DELETE

	rightsToLook = windows.FILE_READ_ATTRIBUTES | windows.READ_CONTROL
)

// openNode opens path without following a reparse point at its end.
func openNode(path string, c create) (*node, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	var sa *windows.SecurityAttributes
	if c.sddl != "" {
		if sa, err = attributes(c.sddl); err != nil {
			return nil, err
		}
	}
	handle, err := windows.CreateFile(name, c.rights, c.share, sa, c.disposition,
		windows.FILE_FLAG_OPEN_REPARSE_POINT|windows.FILE_FLAG_BACKUP_SEMANTICS, 0)
	runtime.KeepAlive(sa)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	n := &node{handle: handle, path: path}
	if err := windows.GetFileInformationByHandle(handle, &n.info); err != nil {
		n.close()
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return n, nil
}

// attributes turns a descriptor's text into what the create calls take.
func attributes(sddl string) (*windows.SecurityAttributes, error) {
	sd, err := windows.SecurityDescriptorFromString(sddl)
	if err != nil {
		return nil, fmt.Errorf("descriptor %s: %w", sddl, err)
	}
	sa := &windows.SecurityAttributes{SecurityDescriptor: sd}
	sa.Length = uint32(unsafe.Sizeof(*sa))
	return sa, nil
}

// descriptor reads owner and access list by handle.
func (n *node) descriptor() (string, error) {
	sd, err := windows.GetSecurityInfo(n.handle, windows.SE_FILE_OBJECT,
		windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return "", &fs.PathError{Op: "read descriptor", Path: n.path, Err: err}
	}
	return sd.String(), nil
}

// pinned are the open parents of a path: while they are open without
// FILE_SHARE_DELETE nobody can exchange them under us.
type pinned []*node

func (p pinned) close() {
	for _, n := range p {
		n.close()
	}
}

// parents opens and judges every directory above path, the root first.
func (h *Host) parents(path string) (pinned, error) {
	path, err := cleanPath(path)
	if err != nil {
		return nil, err
	}
	var list []string
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		list = append([]string{dir}, list...)
		if dir == filepath.Dir(dir) {
			break
		}
	}
	var held pinned
	for _, dir := range list {
		n, err := openNode(dir, create{rights: rightsToLook, share: sharePinned, disposition: windows.OPEN_EXISTING})
		if err != nil {
			held.close()
			return nil, err
		}
		held = append(held, n)
		if err := h.parentSafe(n); err != nil {
			held.close()
			return nil, err
		}
	}
	if err := h.sameAsHeld(held[len(held)-1]); err != nil {
		held.close()
		return nil, err
	}
	return held, nil
}

func (h *Host) parentSafe(n *node) error {
	if n.isLink() || !n.isDir() {
		return &platform.AccessError{Path: n.path, Want: platform.Public, Problem: "is a junction or link on the way; configure the path that it leads to"}
	}
	text, err := n.descriptor()
	if err != nil {
		return err
	}
	return policy{access: platform.Public, agent: h.agent}.judgeParent(n.path, text)
}

// verify judges type, links, owner and list of an open object.
func (h *Host) verify(n *node, a platform.Access) error {
	p, err := h.policy(a)
	if err != nil {
		return err
	}
	if n.isLink() {
		return &platform.AccessError{Path: n.path, Want: a, Problem: "is a junction or link"}
	}
	if !n.isDir() && n.info.NumberOfLinks != 1 {
		return &platform.AccessError{Path: n.path, Want: a, Problem: fmt.Sprintf("has %d links, want 1", n.info.NumberOfLinks)}
	}
	text, err := n.descriptor()
	if err != nil {
		return err
	}
	return p.judge(n.path, text)
}

// remove deletes by handle, which needs the right DELETE.
func (n *node) remove() error {
	disposition := uint32(windows.FILE_DISPOSITION_DELETE | windows.FILE_DISPOSITION_POSIX_SEMANTICS)
	err := windows.SetFileInformationByHandle(n.handle, windows.FileDispositionInfoEx,
		(*byte)(unsafe.Pointer(&disposition)), uint32(unsafe.Sizeof(disposition)))
	if err != nil { // before Windows 10 1709, or a file system without it
		del := byte(1)
		err = windows.SetFileInformationByHandle(n.handle, windows.FileDispositionInfo, &del, 1)
	}
	if err != nil {
		return &fs.PathError{Op: "remove", Path: n.path, Err: err}
	}
	return nil
}

// rename gives the open file another name in its directory, which needs the
// right DELETE.
func (n *node) rename(to string, replace bool) error {
	name, err := windows.UTF16FromString(to)
	if err != nil {
		return err
	}
	type renameInfo struct {
		flags  uint32
		root   windows.Handle
		length uint32
		name   [windows.MAX_LONG_PATH]uint16
	}
	if len(name) > windows.MAX_LONG_PATH {
		return &fs.PathError{Op: "rename into", Path: to, Err: windows.ERROR_FILENAME_EXCED_RANGE}
	}
	info := &renameInfo{length: uint32(len(name)-1) * 2} //nolint:gosec // a name is shorter than 64 KB
	copy(info.name[:], name)
	size := uint32(unsafe.Offsetof(info.name)) + uint32(len(name))*2 //nolint:gosec // a name is shorter than 64 KB
	info.flags = windows.FILE_RENAME_POSIX_SEMANTICS
	if replace {
		info.flags |= windows.FILE_RENAME_REPLACE_IF_EXISTS
	}
	err = windows.SetFileInformationByHandle(n.handle, windows.FileRenameInfoEx, (*byte)(unsafe.Pointer(info)), size)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		info.flags &= windows.FILE_RENAME_REPLACE_IF_EXISTS // the old form has a boolean in its place
		err = windows.SetFileInformationByHandle(n.handle, windows.FileRenameInfo, (*byte)(unsafe.Pointer(info)), size)
	}
	if err != nil {
		return &fs.PathError{Op: "rename into", Path: to, Err: err}
	}
	return nil
}

// file hands the handle over to an os.File.
func (n *node) file() *os.File {
	f := os.NewFile(uintptr(n.handle), n.path)
	n.handle = windows.InvalidHandle
	return f
}
