package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"

	"postern/agent/control"
)

// pidFile is where init systems without supervision look for the agent. It is
// opened by root, whose directory it lies in, and written once the databases
// are ours: a second agent that is turned away must not take the place of the
// first. A nil pidFile is a no-op.
type pidFile struct {
	path  string
	file  *os.File
	made  bool // by us
	wrote bool
}

// openPID opens or makes the file; what stands in it, of an agent that was
// killed, stays until write. A link is not followed.
func openPID(path string) (*pidFile, error) {
	if path == "" {
		return nil, nil //nolint:nilnil // nobody wants one
	}
	refuse := func(format string, args ...any) (*pidFile, error) {
		return nil, control.NewFault(control.ExitUsage, "pidfile", "ls -ld "+quoted(path)+"   # give a --pidfile that can be written, such as /run/postern.pid", format, args...)
	}
	_, err := os.Lstat(path)
	made := errors.Is(err, os.ErrNotExist)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|openLiterally, 0o644) //nolint:gosec // a pid is public
	if err != nil {
		return refuse("pid file: %w", err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err == nil && names(info) > 1 {
		err = fmt.Errorf("%s is a file that has another name, too", path)
	}
	if err != nil {
		_ = file.Close() // nothing was written
		return refuse("pid file: %w", err)
	}
	return &pidFile{path: path, file: file, made: made}, nil
}

// write puts our number into the file, instead of what an earlier agent left.
func (p *pidFile) write() error {
	if p == nil {
		return nil
	}
	p.wrote = true
	return p.set(strconv.Itoa(os.Getpid()) + "\n")
}

func (p *pidFile) set(text string) error {
	if err := p.file.Truncate(0); err != nil {
		return fmt.Errorf("pid file: %w", err)
	}
	if _, err := p.file.WriteAt([]byte(text), 0); err != nil {
		return fmt.Errorf("pid file: %w", err)
	}
	return nil
}

// close takes the file away, if it is ours. The account that we became may not
// be able to remove it from root's directory: then it stays empty, and names
// nobody.
func (p *pidFile) close(log *slog.Logger) {
	if p == nil {
		return
	}
	defer func() { _ = p.file.Close() }()
	if !p.made && !p.wrote {
		return // another agent's
	}
	ours, err := p.file.Stat()
	if there, lerr := os.Lstat(p.path); err != nil || lerr != nil || !os.SameFile(ours, there) {
		return
	}
	if os.Remove(p.path) == nil {
		return
	}
	if err := p.file.Truncate(0); err != nil {
		log.Warn("pid file is left behind", "path", p.path, "reason", err)
	}
}
