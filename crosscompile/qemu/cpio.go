//go:build linux

package qemu

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Archive is an initramfs in the making: newc cpio, gzip. Owner, times and
// order are fixed, so the same content gives the same bytes; devices need no root.
type Archive struct {
	entries []entry
	dirs    map[string]bool
}

type entry struct {
	name         string
	mode         uint32
	content      string
	path         string // instead of content
	major, minor uint32
}

// The types of newc entries.
const (
	cpioDir  = 0o040000
	cpioFile = 0o100000
	cpioLink = 0o120000
	cpioChar = 0o020000
	cpioBlk  = 0o060000
)

// Dir adds a directory. Parents of any entry are added by themselves, with 0755.
func (a *Archive) Dir(name string, mode fs.FileMode) {
	a.add(entry{name: name, mode: cpioDir | bits(mode)})
}

// File adds a file.
func (a *Archive) File(name string, mode fs.FileMode, content []byte) {
	a.add(entry{name: name, mode: cpioFile | bits(mode), content: string(content)})
}

// Copy adds a file of the host, read when the archive is written.
func (a *Archive) Copy(name string, mode fs.FileMode, hostPath string) {
	a.add(entry{name: name, mode: cpioFile | bits(mode), path: hostPath})
}

// Link adds a symbolic link.
func (a *Archive) Link(name, target string) {
	a.add(entry{name: name, mode: cpioLink | 0o777, content: target})
}

// Node adds a device: kind 'c' or 'b'.
func (a *Archive) Node(name string, mode fs.FileMode, kind byte, major, minor uint32) {
	kinds := map[byte]uint32{'c': cpioChar, 'b': cpioBlk}
	a.add(entry{name: name, mode: kinds[kind] | bits(mode), major: major, minor: minor})
}

// Tree adds everything below a folder of the host under name, with its modes.
func (a *Archive) Tree(name, hostDir string) error {
	return filepath.WalkDir(hostDir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(hostDir, p)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		to := path.Join(name, filepath.ToSlash(rel))
		switch {
		case d.IsDir():
			a.Dir(to, info.Mode())
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			a.Link(to, target)
		case d.Type().IsRegular():
			a.Copy(to, info.Mode(), p)
		}
		return nil
	})
}

func bits(mode fs.FileMode) uint32 {
	b := uint32(mode.Perm())
	for flag, bit := range map[fs.FileMode]uint32{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if mode&flag != 0 {
			b |= bit
		}
	}
	return b
}

func (a *Archive) add(e entry) {
	e.name = strings.Trim(path.Clean("/"+e.name), "/")
	if a.dirs == nil {
		a.dirs = map[string]bool{"": true}
	}
	if e.name == "" {
		return
	}
	if e.mode&cpioDir == cpioDir && e.mode&0o170000 == cpioDir {
		if a.dirs[e.name] {
			return
		}
		a.dirs[e.name] = true
	}
	if parent := path.Dir("/" + e.name)[1:]; !a.dirs[parent] {
		a.Dir(parent, 0o755)
	}
	a.entries = append(a.entries, e)
}

// WriteTo writes the archive; it may be called more than once.
func (a *Archive) WriteTo(w io.Writer) (int64, error) {
	count := &counter{w: w}
	zip, err := gzip.NewWriterLevel(count, gzip.BestSpeed)
	if err != nil {
		return 0, err
	}
	out := bufio.NewWriterSize(zip, 1<<20)
	for i, e := range append([]entry{{name: ".", mode: cpioDir | 0o755}}, a.entries...) {
		if err := e.write(out, i+1); err != nil {
			return count.n, err
		}
	}
	if err := (entry{name: "TRAILER!!!"}).write(out, 0); err != nil {
		return count.n, err
	}
	if err := out.Flush(); err != nil {
		return count.n, err
	}
	return count.n, zip.Close()
}

// Save writes the archive to a file.
func (a *Archive) Save(file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if _, err := a.WriteTo(f); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

// write writes one entry: 13 numbers of 8 digits behind the magic, the name and the
// content, each filled up to 4 bytes (Documentation/driver-api/early-userspace/buffer-format.rst).
func (e entry) write(w io.Writer, inode int) error {
	var content io.Reader = strings.NewReader(e.content)
	size := int64(len(e.content))
	if e.path != "" {
		f, err := os.Open(e.path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		content, size = f, info.Size()
	}
	links := 1
	if e.mode&0o170000 == cpioDir {
		links = 2
	}
	head := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		inode, e.mode, 0, 0, links, 0, size, 0, 0, e.major, e.minor, len(e.name)+1, 0, e.name)
	if _, err := io.WriteString(w, head+strings.Repeat("\x00", -len(head)&3)); err != nil {
		return err
	}
	n, err := io.Copy(w, io.LimitReader(content, size))
	if err != nil {
		return err
	}
	if n != size {
		return fmt.Errorf("%s: read %d of %d bytes", e.path, n, size)
	}
	_, err = io.WriteString(w, strings.Repeat("\x00", int(-size&3)))
	return err
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
