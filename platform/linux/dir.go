//go:build linux

package linux

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"postern/platform"
)

// dir is a directory that is held open and compared with its path.
type dir struct {
	h      *Host
	access platform.Access
	node   *node  // O_RDONLY; path is the real one
	asked  string // as given to OpenDir

	mu sync.RWMutex // taken for writing by Close alone
}

// OpenDir opens and holds a directory; files made in it by path (WriteFile,
// OpenFile) are refused as long as the path leads elsewhere. Given the literal
// token path, which may be a link of root's, it holds what the link leads to.
func (h *Host) OpenDir(path string, a platform.Access) (platform.Dir, error) {
	path, err := cleanPath(path)
	if err != nil {
		return nil, err
	}
	real := path
	if path == h.dirs.TokensLiteral {
		if real, err = h.literalTarget(); err != nil {
			return nil, err
		}
	}
	parent, base, err := h.parent(real)
	if err != nil {
		return nil, err
	}
	defer parent.close()
	look, err := h.open(parent, base, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	defer look.close()
	if look.st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, &platform.AccessError{Path: real, Want: a, Problem: "is a " + kind(look.st.Mode) + ", want a directory"}
	}
	if err := h.verify(look, a); err != nil {
		return nil, err
	}
	n, err := h.open(look, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	n.path = real
	d := &dir{h: h, access: a, node: n, asked: path}
	h.hold(d)
	return d, nil
}

// hold remembers the newest open directory of each path.
func (h *Host) hold(d *dir) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held[d.node.path] = d
}

func (h *Host) release(d *dir) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held[d.node.path] == d {
		delete(h.held, d.node.path)
	}
}

// sameAsHeld refuses a directory that took the place of one that we hold:
// nothing is written to the stranger (TestNothingIsWrittenToAReplacedDirectory).
func (h *Host) sameAsHeld(n *node) error {
	h.mu.Lock()
	d := h.held[n.path]
	h.mu.Unlock()
	if d == nil {
		return nil
	}
	return d.compare(&n.st)
}

// compare says whether st is the directory that is held.
func (d *dir) compare(st *unix.Stat_t) error {
	if st.Dev == d.node.st.Dev && st.Ino == d.node.st.Ino {
		return nil
	}
	return &platform.AccessError{
		Path: d.node.path, Want: d.access,
		Problem: fmt.Sprintf("was replaced: it is now %s, held is %s", identity(st), identity(&d.node.st)),
	}
}

func identity(st *unix.Stat_t) string {
	return fmt.Sprintf("inode %d on device %d:%d", st.Ino, unix.Major(st.Dev), unix.Minor(st.Dev))
}

// Path is the path that was given to OpenDir.
func (d *dir) Path() string { return d.asked }

var errClosed = fmt.Errorf("directory: %w", fs.ErrClosed)

// use runs f while the descriptor is certain to be open.
func (d *dir) use(f func() error) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.node.fd < 0 {
		return errClosed
	}
	return f()
}

// Create makes the file name with the content and the directory's access. It
// compares the held directory with its path first (two system calls), so that
// no challenge is written where nobody can find it. Nothing is synced: what
// stands here is worth less than a reboot.
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
		return d.h.born(d.node, name, content, p, p.fileMode()&^0o200, false)
	})
}

// inPlace is the cheap half of Check: the path still leads to what is held.
// Links are followed here, since only the identity of the end counts; the way
// there is verified by Check.
func (d *dir) inPlace() error {
	var st unix.Stat_t
	if err := unix.Stat(d.client(), &st); err != nil {
		return d.lost(d.client(), err)
	}
	return d.compare(&st)
}

// client is the path by which clients come: the literal one for the token
// directory, else its own.
func (d *dir) client() string {
	if d.node.path == d.h.dirs.Tokens {
		return d.h.dirs.TokensLiteral
	}
	return d.asked
}

func (d *dir) lost(path string, err error) error {
	problem := fmt.Sprintf("cannot be reached: %v; held is %s", err, identity(&d.node.st))
	fix := ""
	if path == d.h.dirs.TokensLiteral && path != d.node.path {
		fix = fmt.Sprintf("mkdir -p %s && ln -s %s %s", filepath.Dir(path), d.node.path, path)
	}
	return &platform.AccessError{Path: path, Want: d.access, Problem: problem, Fix: fix}
}

// Check compares the held directory with its path by device and inode and
// verifies owner, access and every parent; for the token directory also the
// way from the literal path.
func (d *dir) Check() error {
	return d.use(func() error {
		n, err := d.h.find(d.node.path)
		if errors.Is(err, fs.ErrNotExist) {
			return d.lost(d.node.path, unix.ENOENT)
		}
		if err != nil {
			return err
		}
		defer n.close()
		if err := d.compare(&n.st); err != nil {
			return err
		}
		if err := d.h.verify(n, d.access); err != nil {
			return err
		}
		if d.client() == d.node.path {
			return nil
		}
		_, err = d.h.literalTarget()
		if errors.Is(err, fs.ErrNotExist) {
			return d.lost(d.client(), unix.ENOENT)
		}
		if err != nil {
			return err
		}
		return d.inPlace()
	})
}

// literalTarget is where the literal token path leads: itself if it is a
// directory, else the target of the link, which must be root's or ours in
// directories that others cannot write.
func (h *Host) literalTarget() (string, error) {
	literal := h.dirs.TokensLiteral
	parent, base, err := h.parent(literal)
	if err != nil {
		return "", err
	}
	defer parent.close()
	n, err := h.open(parent, base, unix.O_PATH, 0)
	if err != nil {
		return "", err
	}
	defer n.close()
	if n.st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return literal, nil
	}
	if n.st.Uid != 0 && n.st.Uid != uid() {
		return "", &platform.AccessError{
			Path: literal, Want: platform.TokenReaders,
			Problem: fmt.Sprintf("is a link owned by uid %d, want root", n.st.Uid), Fix: "chown -h root " + literal,
		}
	}
	buf := make([]byte, unix.PathMax)
	// An empty name reads the link that the descriptor itself is (readlinkat(2)).
	size, err := unix.Readlinkat(n.fd, "", buf)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: literal, Err: err}
	}
	target := string(buf[:size])
	if !filepath.IsAbs(target) {
		target = filepath.Join(filepath.Dir(literal), target)
	}
	return filepath.Clean(target), nil
}

// plainName refuses names that would leave the directory.
func plainName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") || len(name) > 255 {
		return fmt.Errorf("%q is not a file name", name)
	}
	return nil
}

// Remove unlinks a regular file that our account owns; anything else stays and
// is an *platform.AccessError. fs.ErrNotExist if it is gone.
func (d *dir) Remove(name string) error {
	if err := plainName(name); err != nil {
		return err
	}
	return d.use(func() error {
		path := filepath.Join(d.node.path, name)
		var st unix.Stat_t
		if err := unix.Fstatat(d.node.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &fs.PathError{Op: "stat", Path: path, Err: err}
		}
		if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Uid != uid() {
			return &platform.AccessError{
				Path: path, Want: d.access,
				Problem: fmt.Sprintf("is a %s of uid %d, not a file of ours: left alone", kind(st.Mode), st.Uid),
			}
		}
		if err := unix.Unlinkat(d.node.fd, name, 0); err != nil {
			return &fs.PathError{Op: "remove", Path: path, Err: err}
		}
		return nil
	})
}

// Names lists all entries. Birth is the wall time at which the file was made,
// as the file system knows it, else of its last change.
func (d *dir) Names() ([]platform.Entry, error) {
	var entries []platform.Entry
	err := d.use(func() error {
		// A descriptor of its own: the offset of the held one is shared.
		n, err := d.h.open(d.node, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(n.fd), d.node.path)
		defer func() { _ = f.Close() }() // read only
		names, err := f.Readdirnames(-1)
		if err != nil {
			return err
		}
		for _, name := range names {
			e, err := entry(d.node.fd, name)
			if errors.Is(err, unix.ENOENT) {
				continue // it left while we looked
			}
			if err != nil {
				return &fs.PathError{Op: "stat", Path: filepath.Join(d.node.path, name), Err: err}
			}
			entries = append(entries, e)
		}
		return nil
	})
	return entries, err
}

func entry(dirfd int, name string) (platform.Entry, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return platform.Entry{}, err
	}
	e := platform.Entry{
		Name:  name,
		Ours:  st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1 && st.Uid == uid(),
		Birth: time.Unix(st.Mtim.Unix()).UTC(),
	}
	var stx unix.Statx_t
	if err := unix.Statx(dirfd, name, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BTIME, &stx); err == nil && stx.Mask&unix.STATX_BTIME != 0 {
		e.Birth = time.Unix(stx.Btime.Sec, int64(stx.Btime.Nsec)).UTC()
	}
	return e, nil
}

// Close releases the directory; a second call does nothing.
func (d *dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.node.fd < 0 {
		return nil
	}
	d.h.release(d)
	d.node.close()
	return nil
}
