package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

func backupName(path string) string { return path + ".bak" }

// reopen opens the file that stands at path, to read only where it cannot be
// written. It needs write, and no open file.
func (d *DB) reopen(ctx context.Context) error {
	why := d.unlocked
	l, err := load(ctx, d.path, d.kind, d.key, d.o, d.lock == nil, d.expendable)
	if err != nil && unwritable(err) {
		why = err
		l, err = load(ctx, d.path, d.kind, d.key, d.o, true, d.expendable)
	}
	if !errors.Is(err, errSlow) {
		d.slow = 0
	} else if d.slow++; d.slow >= slowTries {
		err = fmt.Errorf("%w %d times: %w", err, d.slow, ErrDamaged)
	}
	if err != nil {
		return err
	}
	if len(l.bad) > 0 {
		d.o.Log.Warn("values that are not authentic were left out", "event", "store-recovered", "path", d.path, "values", len(l.bad))
		d.suspect = true // the next commit goes to a copy without them
	}
	d.install(l)
	if l.readOnly {
		d.problem(cmp.Or(why, ErrReadOnly))
	}
	return nil
}

// install makes l the file in use.
func (d *DB) install(l *loaded) {
	d.state.Lock()
	defer d.state.Unlock()
	d.file = l
	d.health.Dropped += len(l.bad)
	d.health.Mode, d.health.Problem, d.health.Fix = ModeDisk, "", ""
	if l.readOnly {
		d.health.Mode = ModeReadOnly
	}
}

// acknowledge takes what the file in use shows for the last commit.
func (d *DB) acknowledge() {
	d.state.Lock()
	defer d.state.Unlock()
	d.last = d.file.root
}

// uninstall closes the file in use.
func (d *DB) uninstall(broken bool) {
	d.state.Lock()
	defer d.state.Unlock()
	if d.file == nil {
		return
	}
	if err := d.file.close(broken); err != nil {
		d.o.Log.Warn("database file could not be closed", "path", d.path, "error", err)
	}
	d.file = nil
}

// failed is what happens when a commit did not succeed: the handle is never
// written again. After an error of fdatasync the kernel may show pages that
// are not on the disk, so the file is only read, and copied into a new one
// before the next commit. It needs write.
func (d *DB) failed(cause error) error {
	d.uninstall(wasCaught(cause))
	d.suspect = true
	cause = fmt.Errorf("commit %s: %w", d.path, cause)
	d.problem(cause)
	if err := d.recover(context.Background()); err != nil {
		d.problem(cause)
	}
	return cause
}

func (d *DB) problem(err error) {
	d.state.Lock()
	defer d.state.Unlock()
	d.health.Problem, d.health.Fix = err.Error(), cmp.Or(FixOf(err), fixUnwritable(err, filepath.Dir(d.path)))
	if d.file == nil {
		d.health.Mode = ModeMemory
	}
}

// recover puts the file in order: reopened, copied anew after a commit that
// did not succeed, made anew from memory, or restored from the backup copy. On
// an error the file may still be open for reading. It needs write.
func (d *DB) recover(ctx context.Context) error {
	if err := d.attached(); err != nil {
		return err
	}
	if err := d.relock(); err != nil {
		return fmt.Errorf("%w: %w", err, ErrReadOnly)
	}
	if d.file != nil && d.suspect {
		return d.copyAnew(ctx)
	}
	if d.file != nil && !d.writable() {
		return fmt.Errorf("%s: %w", d.path, ErrReadOnly)
	}
	d.uninstall(false)
	err := d.reopen(ctx)
	if err == nil && d.file.root.generation < d.last.generation {
		err = fmt.Errorf("%s went back from generation %d to %d: %w", d.path, d.last.generation, d.file.root.generation, ErrDamaged)
	}
	if err == nil && d.memory != nil && !d.expendable && d.file.root != d.last {
		d.suspect = true // it shows a commit that nobody was told of: memory decides
	}
	switch {
	case err == nil && d.file.readOnly:
		return fmt.Errorf("%s: %w", d.path, ErrReadOnly)
	case err == nil && d.suspect:
		return d.copyAnew(ctx)
	case err == nil:
		d.acknowledge()
		return nil
	case errors.Is(err, fs.ErrNotExist), restorable(err), d.expendable && errors.Is(err, ErrDamaged):
		return d.remake(ctx, err)
	}
	if ctx.Err() == nil {
		d.problem(err)
	}
	return err
}

// writable asks the file system, so that a file that can only be read is not
// closed in vain.
func (d *DB) writable() bool {
	f, err := d.o.OpenFile(d.path, os.O_RDWR)
	if err != nil {
		return false
	}
	return f.Close() == nil
}

// relock takes the lock that could not be had when the directory was read-only.
func (d *DB) relock() (err error) {
	if d.lock == nil {
		d.lock, err = lockFile(lockName(d.path), d.o)
	}
	return err
}

// copyAnew writes the values of the file in use, or those in memory, to a new
// file: its fsync covers every page.
func (d *DB) copyAnew(ctx context.Context) error {
	from := d.file.records
	if d.memory != nil && !d.expendable {
		from = d.memory // what was acknowledged, whatever the failed commit left behind
	}
	old := d.file
	err := d.replace(ctx, max(d.last.generation, d.file.root.generation), from)
	if err != nil && d.file == old {
		d.file.readOnly = true // to be read on, not to be written
		return fmt.Errorf("%w: %w", err, ErrReadOnly)
	}
	return err
}

// remake makes the file anew when it is gone or damaged.
func (d *DB) remake(ctx context.Context, cause error) error {
	d.uninstall(false)
	if d.memory == nil {
		return d.restore(ctx, cause)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	ctx = context.WithoutCancel(ctx) // what is put aside has a successor
	if err := d.setAside(); err != nil {
		return err
	}
	if err := d.replace(ctx, d.last.generation, d.memory); err != nil {
		return err
	}
	d.recovered(cause, "written anew from memory")
	return nil
}

// restore puts the backup copy in the place of a file that is gone or damaged.
func (d *DB) restore(ctx context.Context, cause error) error {
	b, err := load(ctx, backupName(d.path), d.kind, d.key, d.o, true, false)
	if err != nil {
		return fmt.Errorf("%w; backup copy: %w", cause, err)
	}
	defer func() { _ = b.close(false) }()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	ctx = context.WithoutCancel(ctx) // as in remake
	if err := d.setAside(); err != nil {
		return err
	}
	if err := d.replace(ctx, b.root.generation, b.records); err != nil {
		return err
	}
	d.recovered(cause, "restored from the backup copy")
	return nil
}

// replace builds a file from the source and gives it the name path, over what
// stands there. The file in use stays in use until the new one is open, so that
// there is no moment without one.
func (d *DB) replace(ctx context.Context, generation uint64, from source) error {
	temp, written, err := build(ctx, d.path, d.kind, d.key, d.o, max(generation, 1), from)
	d.spent(written)
	if err != nil {
		return err
	}
	if !renamesOpenFiles {
		d.uninstall(false)
		if err := putFile(temp, d.path); err != nil {
			return err
		}
		temp = d.path
	}
	l, err := d.openNew(temp)
	if err != nil {
		return err
	}
	if renamesOpenFiles {
		err = putFile(temp, d.path)
		if err != nil && samePath(l.file, d.path) != nil {
			return errors.Join(err, l.close(false))
		}
		d.uninstall(false)
	}
	d.suspect = err != nil // it has its name, but perhaps not for good
	d.install(l)
	d.acknowledge()
	return err
}

// openNew opens a file that build has verified.
func (d *DB) openNew(path string) (*loaded, error) {
	f, err := openDescriptor(path, d.o, false)
	if err != nil {
		return nil, err
	}
	h, err := mapFile(f, path, d.o, false)
	if err != nil {
		return nil, err
	}
	return authenticate(h, d.kind, d.key, d.o, false)
}

func (d *DB) recovered(cause error, how string) {
	d.o.Log.Warn("database "+how, "event", "store-recovered", "path", d.path, "reason", cause)
	d.state.Lock()
	defer d.state.Unlock()
	d.health.Recovered = how + ": " + cause.Error()
	d.health.RecoveredAt = d.o.Now().UTC()
}

// Check puts right what changed outside: a file that was deleted, exchanged or
// could not be written. Call it every 30 s; while all is well it costs three
// system calls and writes nothing. An error says what still is wrong.
func (d *DB) Check(ctx context.Context) error {
	d.write.Lock()
	defer d.write.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return d.check(ctx)
}

func (d *DB) check(ctx context.Context) error {
	if err := d.attached(); err != nil {
		if !errors.Is(err, ErrClosed) {
			d.problem(err)
		}
		return err
	}
	if d.doubt.Swap(false) {
		d.uninstall(true)
	}
	if d.file == nil || d.file.readOnly || d.suspect {
		return d.recover(ctx)
	}
	err := samePath(d.file.file, d.path)
	if err == nil {
		d.settled()
		return nil
	}
	cause := fmt.Errorf("%s was deleted or exchanged under the running process", d.path)
	ctx = context.WithoutCancel(ctx) // as in remake
	if err := d.setAside(); err != nil {
		d.problem(err)
		return err
	}
	if err := d.replace(ctx, d.last.generation, d.file.records); err != nil {
		d.problem(err)
		return err
	}
	d.recovered(cause, "written anew")
	return nil
}

// settled clears a problem that is over.
func (d *DB) settled() {
	d.state.Lock()
	defer d.state.Unlock()
	if d.file != nil && !d.file.readOnly {
		d.health.Mode, d.health.Problem, d.health.Fix = ModeDisk, "", ""
	}
}

// Backup writes a compact copy of the file to path+".bak", atomically: every
// value is opened and sealed anew, so damage is never copied. Open restores it.
func (d *DB) Backup(ctx context.Context) error {
	d.write.Lock()
	defer d.write.Unlock()
	if d.file == nil {
		d.state.RLock()
		defer d.state.RUnlock()
		return d.absent()
	}
	return d.backup(ctx, d.file.records)
}

func (d *DB) backup(ctx context.Context, from source) error {
	if err := d.attached(); err != nil {
		return err
	}
	path := backupName(d.path)
	if err := d.replaceable(path); err != nil {
		return err
	}
	temp, written, err := build(ctx, path, d.kind, d.key, d.o, max(d.last.generation, 1), from)
	d.spent(written)
	if err != nil {
		return err
	}
	return putFile(temp, path)
}

// replaceable refuses to put a backup copy over what Options.OpenFile refuses:
// a copy that others could read is evidence. One that is merely out of our
// reach gives way.
func (d *DB) replaceable(path string) error {
	if err := notRegular(path); err != nil {
		return err
	}
	f, err := d.o.OpenFile(path, os.O_RDONLY)
	if err == nil {
		return f.Close()
	}
	if errors.Is(err, fs.ErrNotExist) || unwritable(err) {
		return nil
	}
	return err
}
