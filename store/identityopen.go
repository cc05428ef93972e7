package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// OpenIdentity opens the identity in the state directory dir. It never makes
// one, and what is damaged does not make it fail: see Damaged. A damaged or
// missing database is restored from its backup copy; a Destroy that was cut
// short is finished. Errors: ErrLocked if another process has it, ErrRemote,
// fs.ErrNotExist without the directory, ErrUnchecked when the context ended.
func OpenIdentity(ctx context.Context, dir string, o Options) (*IdentityFile, error) {
	d, err := begin(filepath.Join(dir, identityName), nil, o)
	if err != nil {
		return nil, err
	}
	f := &IdentityFile{dir: dir, o: o, db: d}
	d.memory = func(emit func(place, []byte) error) error { return f.now.Load().source(emit) }
	f.now.Store(&picture{})
	if err := f.open(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return f, nil
}

// open finds out what there is. It returns only errors that OpenIdentity
// returns; everything else ends in the picture.
func (f *IdentityFile) open(ctx context.Context) error {
	d := f.db
	d.write.Lock()
	defer d.write.Unlock()
	m, err := readMarker(f.markerPath(), d.o)
	if err != nil && !errors.Is(err, ErrDamaged) {
		return f.damage(err)
	}
	marked := m != nil || err != nil
	if m == nil {
		m = &marker{}
	}
	if m.State == markerDestroying {
		if err := f.finishDestroy(); err != nil { // none is left all the same; Check tries again
			d.o.Log.Warn("identity is given up, its files cannot be removed yet", "path", d.path, "error", err)
		}
		return nil
	}
	if !marked && missing(d.path) && missing(backupName(d.path)) {
		f.now.Store(&picture{})
		return nil
	}
	k, err := LoadKey(f.keyPath(), f.o)
	if err != nil {
		return f.damage(err)
	}
	d.state.Lock()
	d.key = k
	d.state.Unlock()
	before := f.now.Load()
	if err := f.choose(ctx, m); err != nil {
		if ctx.Err() != nil { // what it would have found nobody knows
			f.now.Store(before)
			return err
		}
		return f.damage(err)
	}
	if f.now.Load().damaged == nil && (!marked || m.Generation != d.last.generation || missing(backupName(d.path))) {
		f.behind = true
	}
	return nil
}

// damage notes why the identity cannot be read. Being locked out is no damage.
func (f *IdentityFile) damage(err error) error {
	if errors.Is(err, ErrLocked) {
		return err
	}
	if FixOf(err) == "" {
		err = WithFix(err, fixDamaged(err))
	}
	f.now.Store(&picture{damaged: err})
	f.seen = f.signature()
	f.db.problem(err)
	if unchecked(err) && !errors.Is(err, ErrDamaged) { // Check tries again
		f.db.o.Log.Warn("identity could not be checked yet", "path", f.db.path, "error", err)
		return nil
	}
	f.db.o.Log.Error("identity cannot be read", "event", "store-damaged", "path", f.db.path, "error", err)
	return nil
}

func fixDamaged(err error) string {
	switch {
	case errors.Is(err, ErrNewer):
		return "postern version   # and install the newer release again"
	case errors.Is(err, ErrWrongKey), errors.Is(err, ErrNotFound):
		return "sudo postern reconnect --claim-file FILE   # or put back the file kek that belongs to identity.db"
	case errors.Is(err, ErrDamaged):
		return "sudo postern reconnect --claim-file FILE   # or put back identity.db and kek from a backup"
	}
	return "sudo postern check"
}

// choose takes the database if it is whole and as new as the marker says, else
// the newer of database and backup copy. It needs the database's write.
func (f *IdentityFile) choose(ctx context.Context, m *marker) error {
	d := f.db
	cause := d.reopen(ctx)
	if cause == nil {
		d.acknowledge()
	}
	if cause == nil && d.file.root.generation >= m.Generation {
		return f.adopt(d.file)
	}
	if cause == nil {
		cause = fmt.Errorf("%s went back: it has generation %d, the marker says %d", d.path, d.file.root.generation, m.Generation)
		if err := f.adopt(d.file); err != nil {
			return err
		}
	} else if !errors.Is(cause, fs.ErrNotExist) && !restorable(cause) {
		return cause
	}
	return f.fallBack(ctx, m, cause)
}

// fallBack uses the backup copy, if it is newer than what was adopted so far.
func (f *IdentityFile) fallBack(ctx context.Context, m *marker, cause error) error {
	d := f.db
	how := "kept, there is nothing newer"
	b, err := load(ctx, backupName(d.path), d.kind, d.key, d.o, true, false)
	if err == nil {
		if d.file == nil || b.root.generation > d.file.root.generation {
			how = "restored from the backup copy"
			err = f.adopt(b)
			d.last = b.root
		}
		err = errors.Join(err, b.close(false))
	}
	if err != nil && (d.file == nil || unchecked(err)) { // a copy that may be newer must not be written over
		return fmt.Errorf("%w; backup copy: %w", cause, err)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", d.path, ctx.Err())
	}
	ctx = context.WithoutCancel(ctx) // what is put aside has a successor
	// From here on the values are safe in memory. The file is put aside, bytes
	// unchanged, and written anew under a generation that no copy has seen.
	d.last.generation = max(d.last.generation, m.Generation)
	f.behind = true
	err = d.setAside()
	if err == nil {
		err = d.replace(ctx, d.last.generation, f.now.Load().source)
	}
	d.recovered(cause, how)
	if err != nil {
		d.suspect = true
		d.problem(fmt.Errorf("%w; %s, but not yet on disk: %w", cause, how, err))
	}
	return nil
}

// adopt makes the file's values those in memory.
func (f *IdentityFile) adopt(l *loaded) error {
	records := map[place][]byte{}
	err := l.records(func(p place, plain []byte) error {
		records[p] = plain
		return nil
	})
	if err != nil {
		return err
	}
	p, err := newPicture(records)
	if err != nil {
		return err
	}
	f.now.Store(p)
	return nil
}

// Check puts right what changed outside: a deleted or exchanged database, a
// backup copy or marker that is missing or behind, a file that could not be
// written, a damaged identity that was put back. Call it every 30 s. While all
// is well it costs a few system calls and writes nothing. An error says what is
// still wrong.
func (f *IdentityFile) Check(ctx context.Context) error {
	f.write.Lock()
	defer f.write.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if f.Damaged() != nil {
		return f.again(ctx)
	}
	if len(f.now.Load().records) == 0 {
		return f.idle()
	}
	if err := f.db.Check(ctx); err != nil {
		return err
	}
	if err := f.db.key.keep(f.keyPath(), f.db.o); err != nil {
		return err
	}
	if !f.behind {
		shown, err := f.followed(ctx)
		if err != nil {
			return err
		}
		f.behind = !shown
	}
	if f.behind {
		f.follow(context.WithoutCancel(ctx))
	}
	if f.behind {
		return errors.New(f.db.Health().Problem)
	}
	return nil
}

// idle is the check of a device without an identity: a Destroy that could not
// be finished is.
func (f *IdentityFile) idle() error {
	f.db.write.Lock()
	defer f.db.write.Unlock()
	if err := f.db.attached(); err != nil {
		f.db.problem(err)
		return err
	}
	if m, err := readMarker(f.markerPath(), f.db.o); err == nil && m != nil && m.State == markerDestroying {
		return f.finishDestroy()
	}
	return nil
}

// again tries to open what was damaged: the key file, or access to it, may
// have come back.
func (f *IdentityFile) again(ctx context.Context) error {
	if cause := f.Damaged(); settledBy(cause) && f.signature() == f.seen {
		return cause // nothing has changed: not worth a child process every 30 s
	}
	f.db.write.Lock()
	f.db.uninstall(false)
	f.db.write.Unlock()
	before := f.db.Health().RecoveredAt
	if err := f.open(ctx); err != nil {
		return err
	}
	if err := f.Damaged(); err != nil {
		return err
	}
	if f.db.Health().RecoveredAt.Equal(before) {
		f.db.recovered(errors.New("it could not be read"), "can be read again")
	}
	return nil
}

// followed reports whether backup copy and marker are there and show the last
// commit. The backup copy is opened once after a start; later its presence
// is enough. An error leaves it open.
func (f *IdentityFile) followed(ctx context.Context) (bool, error) {
	d := f.db
	m, err := readMarker(f.markerPath(), d.o)
	if err != nil || m == nil || m.State != markerPresent || m.Generation != d.last.generation || missing(backupName(d.path)) {
		return false, nil //nolint:nilerr // a marker that cannot be read is written anew
	}
	if f.backupChecked {
		return true, nil
	}
	b, err := load(ctx, backupName(d.path), d.kind, d.key, d.o, true, false)
	if unchecked(err) {
		return false, fmt.Errorf("backup copy: %w", err)
	}
	if err != nil {
		d.o.Log.Warn("backup copy is not usable and is written anew", "event", "store-recovered", "path", backupName(d.path), "reason", err)
		return false, nil
	}
	f.backupChecked = b.root.generation == d.last.generation
	if err := b.close(false); err != nil {
		d.o.Log.Warn("backup copy could not be closed", "path", backupName(d.path), "error", err)
	}
	return f.backupChecked, nil
}
