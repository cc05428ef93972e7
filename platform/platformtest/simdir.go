package platformtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"postern/platform"
)

// simDir is a Dir that compares by os.SameFile.
type simDir struct {
	s      *Sim
	path   string
	access platform.Access
	info   fs.FileInfo

	mu     sync.Mutex
	closed bool
}

// OpenDir remembers which directory is at path.
func (s *Sim) OpenDir(path string, a platform.Access) (platform.Dir, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, &platform.AccessError{Path: path, Want: a, Problem: "is a " + info.Mode().Type().String() + ", want a directory"}
	}
	if err := s.verify(path, info, a); err != nil {
		return nil, err
	}
	d := &simDir{s: s, path: path, access: a, info: info}
	s.mu.Lock()
	s.held[path] = d
	s.mu.Unlock()
	return d, nil
}

func (d *simDir) Path() string { return d.path }

func (d *simDir) open() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return fmt.Errorf("directory: %w", fs.ErrClosed)
	}
	return nil
}

func (d *simDir) inPlace() error {
	info, err := os.Lstat(d.path)
	if err != nil {
		return &platform.AccessError{Path: d.path, Want: d.access, Problem: "cannot be reached: " + err.Error()}
	}
	if !os.SameFile(info, d.info) {
		return &platform.AccessError{Path: d.path, Want: d.access, Problem: "was replaced by another directory"}
	}
	return nil
}

func (d *simDir) Create(name string, content []byte) error {
	if err := plainName(name); err != nil {
		return err
	}
	if err := errors.Join(d.open(), d.inPlace()); err != nil {
		return err
	}
	temp := filepath.Join(d.path, "."+name+".tmp")
	if err := writeNew(temp, content, fileMode(d.access)&^0o200); err != nil {
		return err
	}
	return errors.Join(os.Link(temp, filepath.Join(d.path, name)), os.Remove(temp))
}

func plainName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\\\x00") {
		return fmt.Errorf("%q is not a file name", name)
	}
	return nil
}

func (d *simDir) Remove(name string) error {
	if err := plainName(name); err != nil {
		return err
	}
	if err := d.open(); err != nil {
		return err
	}
	path := filepath.Join(d.path, name)
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return &platform.AccessError{Path: path, Want: d.access, Problem: "is not a file of ours: left alone"}
	}
	return os.Remove(path)
}

func (d *simDir) Names() ([]platform.Entry, error) {
	if err := d.open(); err != nil {
		return nil, err
	}
	list, err := os.ReadDir(d.path)
	if err != nil {
		return nil, err
	}
	var entries []platform.Entry
	for _, e := range list {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // it left while we looked
		}
		if err != nil {
			return nil, err
		}
		entries = append(entries, platform.Entry{Name: e.Name(), Ours: info.Mode().IsRegular(), Birth: info.ModTime().UTC()})
	}
	return entries, nil
}

func (d *simDir) Check() error {
	if err := errors.Join(d.open(), d.inPlace()); err != nil {
		return err
	}
	return d.s.Check(d.path, d.access)
}

func (d *simDir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	if d.s.held[d.path] == d {
		delete(d.s.held, d.path)
	}
	return nil
}
