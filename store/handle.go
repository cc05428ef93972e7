package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// handle is an open bbolt file together with its descriptor, which we keep
// because bbolt cannot always be asked to close it.
type handle struct {
	bolt     *bolt.DB
	file     *os.File
	path     string
	readOnly bool
}

// openHandle verifies the file at path in the way of Options.Verify and opens
// it. It never makes a file. The descriptor is opened, and its access decided
// on, before the check, and the file must still be the same after it. Errors:
// fs.ErrNotExist, ErrUnsafe, ErrDamaged (and what wraps it), ErrNewer,
// ErrLocked, those of Options.OpenFile.
func openHandle(ctx context.Context, path string, o Options, readOnly bool) (*handle, error) {
	f, err := openDescriptor(path, o, readOnly)
	if err != nil {
		return nil, err
	}
	if err := verifyFirst(ctx, path, o); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := samePath(f, path); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return mapFile(f, path, o, readOnly)
}

func openDescriptor(path string, o Options, readOnly bool) (*os.File, error) {
	if err := notRegular(path); err != nil {
		return nil, err
	}
	flag := os.O_RDWR
	if readOnly {
		flag = os.O_RDONLY
	}
	f, err := o.OpenFile(path, flag)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is a %s: %w", path, typeName(info.Mode()), ErrUnsafe)
	}
	if err == nil && info.Size() == 0 {
		err = fmt.Errorf("%s is empty: %w", path, ErrDamaged)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func verifyFirst(ctx context.Context, path string, o Options) error {
	limited, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	err := o.Verify(limited, path)
	if err != nil && ctx.Err() != nil { // cut short: whatever it says is no verdict
		return fmt.Errorf("%s: %w: %w", path, ErrUnchecked, ctx.Err())
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: %w", path, errSlow)
	}
	if errors.Is(err, ErrLocked) {
		return locked(path, o)
	}
	return err
}

// samePath refuses a file that was exchanged between check and use.
func samePath(f *os.File, path string) error {
	held, err := f.Stat()
	if err != nil {
		return err
	}
	now, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !os.SameFile(held, now) {
		return fmt.Errorf("%s was exchanged while it was opened: %w", path, ErrUnsafe)
	}
	return nil
}

// mapFile hands an open descriptor to bbolt. f is closed on error.
func mapFile(f *os.File, path string, o Options, readOnly bool) (*handle, error) {
	h := &handle{file: f, path: path, readOnly: readOnly}
	err := guard(func() (err error) {
		h.bolt, err = bolt.Open(path, 0o600, boltOptions(o, readOnly, func() *os.File { return f }))
		return err
	})
	if err == nil {
		return h, nil
	}
	_ = f.Close() // bbolt has closed it already, unless it panicked
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, locked(path, o)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		return nil, fmt.Errorf("%s: %w: %w", path, err, ErrDamaged)
	}
	return nil, fmt.Errorf("%s: %w", path, err)
}

func boltOptions(o Options, readOnly bool, file func() *os.File) *bolt.Options {
	return &bolt.Options{
		Timeout:  lockTimeout,
		ReadOnly: readOnly,
		PageSize: pageSize,
		MaxSize:  int(o.MaxSize),
		NoSync:   o.testOnlyNoSync,
		OpenFile: func(string, int, os.FileMode) (*os.File, error) { return file(), nil },
	}
}

// locked is the error for a file that another process uses.
func locked(path string, o Options) error {
	held := fmt.Errorf("%s: %w", path, ErrLocked)
	if who := o.Holder(path); who != "" {
		held = fmt.Errorf("%w, %s", held, who)
	}
	return WithFix(held,
		"postern status   # uses its control socket; or stop the other process")
}

// close ends the use of the file. A handle that panicked is let go: its
// descriptor is closed, which frees the lock; its mapping stays until exit.
func (h *handle) close(broken bool) error {
	if broken {
		return h.file.Close()
	}
	err := guard(h.bolt.Close)
	if wasCaught(err) {
		return errors.Join(err, h.file.Close())
	}
	return err
}

// view and update run f in a transaction. f is database code, not the caller's.
func (h *handle) view(f func(*bolt.Tx) error) error {
	return guard(func() error { return h.bolt.View(f) })
}

func (h *handle) update(f func(*bolt.Tx) error) error {
	return guard(func() error { return h.bolt.Update(f) })
}

// written is the number of bytes that one commit after this point will have
// added, as far as bbolt counts them: allocated pages and one meta page.
func (h *handle) allocated() int64 {
	stats := h.bolt.Stats()
	return stats.TxStats.GetPageAlloc()
}

func (h *handle) size() int64 {
	info, err := h.file.Stat()
	if err != nil {
		return 0
	}
	return info.Size()
}

// lockFile makes sure that one process at a time creates, exchanges, restores
// or destroys a database: bbolt's own lock belongs to a file, and these are the
// moments at which the file changes.
func lockFile(path string, o Options) (*os.File, error) {
	if err := notRegular(path); err != nil {
		return nil, err
	}
	f, err := o.OpenFile(path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	for waited := time.Duration(0); ; waited += lockPause {
		ok, err := tryLock(f)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		if ok {
			return f, nil
		}
		if waited >= lockTimeout {
			return nil, errors.Join(locked(path, o), f.Close())
		}
		<-time.After(lockPause)
	}
}

const lockPause = 50 * time.Millisecond

// signature changes when one of the files does, as far as the directory shows.
func signature(paths ...string) string {
	var s strings.Builder
	for _, p := range paths {
		if info, err := os.Lstat(p); err == nil {
			fmt.Fprintln(&s, p, inode(info), info.Mode(), info.Size(), info.ModTime())
		} else {
			fmt.Fprintln(&s, p, errors.Is(err, fs.ErrNotExist))
		}
	}
	return s.String()
}

func missing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}
