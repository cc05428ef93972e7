//go:build linux

package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrInUse means that an agent holds the state: it would write it anew.
var ErrInUse = errors.New("the agent runs")

// claims are where a claim may lie that was not used yet. It is good for one
// device, and an image is for many.
func claims() []string {
	return []string{"/etc/postern/claim", "/etc/credstore/postern.claim", "/etc/credstore.encrypted/postern.claim"}
}

// authorityDir is where a site authority keeps its keys.
const authorityDir = stateDir + "-authority"

// Seal removes from the tree at dir what makes a device this device: the
// enrolment and the cache in the state directory, and claims. The key goes
// first, overwritten, so that whatever stops it leaves nothing that could be
// used; a second run completes it. Files of the state directory that are not
// ours stay, and are in the steps. ErrInUse if an agent has the state open.
func Seal(dir, state string, dryRun bool, before func(op, path string) error) ([]Step, error) {
	r := &root{dir: filepath.Clean(dir), before: before}
	steps, err := r.sealPlan(state)
	if err != nil || dryRun {
		return steps, err
	}
	for _, s := range steps {
		if s.Do != DoRemove {
			continue
		}
		if err := r.sealOne(s, state); err != nil {
			return steps, fmt.Errorf("seal: %w", err)
		}
	}
	return steps, nil
}

// destroy removes what is the agent's in the state directory, the key first.
func (r *root) destroy(state string) error {
	steps, err := r.sealPlan(state)
	if err != nil {
		return err
	}
	for _, s := range steps {
		if s.Do != DoRemove || filepath.Dir(s.Path) != state {
			continue // a claim is no state
		}
		if err := r.sealOne(s, state); err != nil {
			return err
		}
	}
	return nil
}

// sealPlan lists what goes, the key first and the marker last: with the marker
// alone the identity counts as damaged, without it as never there.
func (r *root) sealPlan(state string) ([]Step, error) {
	names, err := r.names(state)
	if err != nil {
		return nil, err
	}
	rank := func(name string) int {
		switch {
		case strings.HasPrefix(name, "kek"):
			return 0
		case strings.HasPrefix(name, "identity.json"):
			return 2
		}
		return 1
	}
	slices.SortStableFunc(names, func(a, b string) int { return rank(a) - rank(b) })
	var steps []Step
	for _, name := range names {
		s := Step{Do: DoRemove, Kind: File, Path: filepath.Join(state, name)}
		switch prefix, _, _ := strings.Cut(strings.TrimPrefix(name, "."), "."); prefix {
		case "kek", "identity", "cache", "workloads":
			if strings.HasSuffix(name, ".db") {
				if err := r.unused(state, name); err != nil {
					return nil, err
				}
			}
		default:
			s.Do, s.Note = DoKeep, "is not the agent's"
		}
		steps = append(steps, s)
	}
	for _, path := range claims() {
		f, err := r.look(path)
		if err != nil {
			return nil, err
		}
		if f != nil {
			steps = append(steps, Step{Do: DoRemove, Kind: File, Path: path, Note: "a claim"})
		}
	}
	if r.there(authorityDir) {
		steps = append(steps, Step{Do: DoKeep, Kind: Directory, Path: authorityDir, Note: "holds the keys of a site authority: remove it, unless each copy shall be that authority"})
	}
	return steps, nil
}

// inState opens the state directory. It is the agent's own, so nothing in it
// is followed.
func (r *root) inState(state string) (int, error) {
	parent, name, err := r.parent(state)
	if err != nil {
		return -1, err
	}
	defer parent.close()
	fd, err := unix.Openat(parent.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: state, Err: err}
	}
	return fd, nil
}

// unused reports ErrInUse when somebody holds the lock of a database.
func (r *root) unused(state, name string) error {
	dir, err := r.inState(state)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(dir) }()
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil //nolint:nilerr // no database, so nobody has it open
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%s is in use: %w", filepath.Join(state, name), ErrInUse)
	}
	return nil
}

// sealOne overwrites and removes one file.
func (r *root) sealOne(s Step, state string) error {
	if r.before != nil {
		if err := r.before("seal", s.Path); err != nil {
			return err
		}
	}
	dir := -1
	var err error
	if filepath.Dir(s.Path) == state {
		dir, err = r.inState(state)
	} else {
		var parent node
		parent, err = r.open(filepath.Dir(s.Path))
		dir = parent.fd
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(dir) }()
	name := filepath.Base(s.Path)
	if err := overwrite(dir, name, s.Path); err != nil {
		return err
	}
	if err := unix.Unlinkat(dir, name, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &fs.PathError{Op: "remove", Path: s.Path, Err: err}
	}
	return syncDir(node{fd: dir})
}

// overwrite puts zeros over a small file: a key or a claim. The cells of a card
// may keep what was there; that is why it is removed, too. A database is
// nothing without the key.
func overwrite(dir int, name, path string) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil //nolint:nilerr // a link or gone: it is removed as it is
	}
	file := os.NewFile(uintptr(fd), path)
	info, err := file.Stat()
	if err == nil && info.Mode().IsRegular() && info.Size() <= 64<<10 {
		_, err = io.Copy(file, bytes.NewReader(make([]byte, info.Size())))
		if err == nil {
			err = file.Sync()
		}
	}
	return errors.Join(err, file.Close())
}
