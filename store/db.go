package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	bolt "go.etcd.io/bbolt"
)

// DB is a bbolt file in which every value is sealed. Safe for concurrent use;
// one Update runs at a time, beside any number of Views. A View must not be
// opened inside another one or inside an Update.
type DB struct {
	path string
	kind string
	key  *Key
	o    Options

	dir  *os.File // the directory, held so that its replacement is seen
	lock *os.File // nil where the directory cannot be written

	unlocked error // why lock is nil

	write sync.Mutex // one writer, one recovery at a time; taken before state

	state   sync.RWMutex // guards what follows; never held while waiting for write
	doubt   atomic.Bool  // a View met something that is not authentic: open anew
	file    *loaded      // nil while there is none to be had
	last    root         // of the last acknowledged commit
	slow    int          // checks in a row that took too long; guarded by write
	suspect bool         // a commit did not succeed: what the file shows may not be on the disk
	closed  bool
	health  Health
	day     string // of health.WrittenToday

	// memory, if set, gives the values for a new file when the old one is lost.
	memory source
	// expendable is the cache: single bad values are left out, and a damaged
	// file gives way to a new one.
	expendable bool
}

// Open opens the sealed database at path, or makes an empty one. The part of
// the base name before the dot is the file's kind: "authority.db" cannot stand
// in for "cache.db". A damaged file is set aside and replaced by its backup
// copy path+".bak" (see Backup) if that is whole; otherwise nothing is touched.
// Errors: ErrDamaged, ErrForeign, ErrWrongKey, ErrNewer, ErrLocked, ErrUnsafe,
// ErrRemote, and what Options.OpenFile refuses.
func Open(ctx context.Context, path string, k *Key, o Options) (*DB, error) {
	d, err := begin(path, k, o)
	if err != nil {
		return nil, err
	}
	if err := d.start(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// begin takes the directory and the lock, and touches no database.
func begin(path string, k *Key, o Options) (*DB, error) {
	o = o.filled()
	kind, _, _ := strings.Cut(filepath.Base(path), ".")
	if err := checkFileSystem(filepath.Dir(path), o); err != nil {
		return nil, err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	d := &DB{path: path, kind: kind, key: k, o: o, dir: dir}
	d.health = Health{Path: path, Mode: ModeClosed}
	d.lock, err = lockFile(lockName(path), o)
	if err != nil && !unwritable(err) {
		return nil, errors.Join(err, dir.Close())
	}
	d.unlocked = err
	return d, nil
}

func lockName(path string) string { return strings.TrimSuffix(path, ".db") + ".lock" }

func checkFileSystem(dir string, o Options) error {
	if o.FileSystem == nil {
		return nil
	}
	system, err := o.FileSystem(dir)
	if err != nil {
		o.Log.Warn("file system is not known", "path", dir, "error", err)
		return nil
	}
	if system.Remote && !o.AllowRemote {
		return WithFix(fmt.Errorf("%s lies on %s: %w", dir, system.Type, ErrRemote),
			"postern config print   # set state_dir to a local disk, or allow_remote_state = true")
	}
	return nil
}

// start opens what is there, restores it, or makes it.
func (d *DB) start(ctx context.Context) error {
	err := d.reopen(ctx)
	switch {
	case err == nil:
		d.acknowledge()
		return nil
	case errors.Is(err, fs.ErrNotExist):
		if !missing(backupName(d.path)) {
			return d.restore(ctx, err)
		}
		return d.replace(ctx, 1, func(func(place, []byte) error) error { return nil })
	case restorable(err) && !missing(backupName(d.path)):
		return d.restore(ctx, err)
	}
	return err
}

// restorable reports whether a backup copy may take the file's place: the file
// is worthless, and not for want of the right key.
func restorable(err error) bool {
	return errors.Is(err, ErrDamaged) && !errors.Is(err, ErrWrongKey)
}

// View runs f on one consistent picture of the file. The error is f's, or says
// that the file is not to be had.
func (d *DB) View(f func(*Tx) error) error {
	d.state.RLock()
	defer d.state.RUnlock()
	if err := d.absent(); err != nil {
		return err
	}
	var tx *Tx
	err := d.file.view(func(b *bolt.Tx) error {
		tx = d.tx(b)
		return unguarded(func() error { return f(tx) })
	})
	if wasCaught(err) || tx != nil && tx.fault != nil {
		d.doubt.Store(true)
	}
	return err
}

// Update runs f and commits what it did: one commit, 60 to 100 KB of flash. An
// error from f undoes everything; a function that changes nothing writes
// nothing. When Update returns nil, the change survives a power cut. Any other
// error than f's own means that the change may be lost; the file is then put
// in order before it is written again, if need be by a later Update or Check.
func (d *DB) Update(f func(*Tx) error) error {
	d.write.Lock()
	defer d.write.Unlock()
	return d.update(f)
}

// update needs write.
func (d *DB) update(f func(*Tx) error) error {
	if err := d.ready(); err != nil {
		return err
	}
	before := d.file.allocated()
	var tx *Tx
	var refused error // f's own no
	err := d.file.update(func(b *bolt.Tx) error {
		tx = d.tx(b)
		if refused = unguarded(func() error { return f(tx) }); refused != nil {
			return refused
		}
		if tx.fault != nil || !tx.dirty {
			return errors.Join(tx.fault, errNothing)
		}
		return tx.finish()
	})
	switch {
	case tx != nil && tx.fault != nil:
		err = tx.fault
	case errors.Is(err, errNothing):
		return nil
	case refused != nil && !wasCaught(err):
		return refused
	}
	if err != nil {
		return d.failed(err)
	}
	d.committed(tx.root, d.file.allocated()-before+pageSize)
	return nil
}

// errNothing ends a transaction that changed nothing, so that nothing is written.
var errNothing = errors.New("nothing to commit")

func (d *DB) tx(b *bolt.Tx) *Tx {
	return &Tx{bolt: b, seal: d.file.seal, schema: d.file.head.schema(), root: d.file.root}
}

// ready makes the file writable if that is possible now. It needs write.
func (d *DB) ready() error {
	return d.check(context.Background())
}

// absent says why there is no file. It needs state.
func (d *DB) absent() error {
	switch {
	case d.closed:
		return fmt.Errorf("%s: %w", d.path, ErrClosed)
	case d.file == nil:
		return fmt.Errorf("%s: %s: %w", d.path, cmp.Or(d.health.Problem, "is being put in order"), ErrReadOnly)
	}
	return nil
}

// attached fails when the directory at our path is no longer the one we hold:
// nothing is written to a stranger.
func (d *DB) attached() error {
	d.state.RLock()
	closed := d.closed
	d.state.RUnlock()
	if closed {
		return fmt.Errorf("%s: %w", d.path, ErrClosed)
	}
	held, err := d.dir.Stat()
	if err != nil {
		return err
	}
	name := filepath.Dir(d.path)
	now, err := os.Stat(name)
	if err != nil {
		return WithFix(fmt.Errorf("%s (%s) is gone: %w", name, inode(held), ErrDetached), "ls -ldi "+name+"   # put the directory back, or restart the agent")
	}
	if !os.SameFile(held, now) {
		return WithFix(fmt.Errorf("%s is %s, it was opened as %s: %w", name, inode(now), inode(held), ErrDetached),
			"ls -ldi "+name+"   # put the directory back, or restart the agent")
	}
	return nil
}

// committed notes an acknowledged commit. It needs write.
func (d *DB) committed(r root, bytes int64) {
	d.state.Lock()
	defer d.state.Unlock()
	d.file.root, d.last = r, r
	d.wrote(bytes)
}

// Close releases the file and the lock. Further use gives ErrClosed.
func (d *DB) Close() error {
	d.write.Lock()
	defer d.write.Unlock()
	d.state.Lock()
	defer d.state.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	d.health.Mode = ModeClosed
	errs := []error{d.dir.Close()}
	if d.file != nil {
		errs = append(errs, d.file.close(false))
		d.file = nil
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Close())
	}
	return errors.Join(errs...)
}
