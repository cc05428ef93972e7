package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
)

// Names in the state directory.
const (
	identityName = "identity.db"
	markerName   = "identity.json"
	cacheName    = "cache.db"
	keyName      = "kek"
	keyLockName  = "kek.lock"
)

// Buckets of identity.db.
const (
	deviceBucket   = "device"
	deviceKey      = "device"
	identityBucket = "identity"
)

// IdentityFile keeps the device and its identities: identity.db, its backup
// copy identity.db.bak, and the marker identity.json. All of it is held in
// memory too, so reading touches no disk and goes on whatever happens to the
// files. Safe for concurrent use.
type IdentityFile struct {
	dir string
	o   Options
	db  *DB

	write         sync.Mutex // one Update, Check or Destroy at a time
	backupChecked bool       // the backup copy was found good since start
	behind        bool       // backup copy or marker do not show the last commit

	seen string // the files' signature when they were found damaged

	now atomic.Pointer[picture]
}

// picture is what the file holds; it is never changed.
type picture struct {
	records    map[place][]byte // JSON; what a newer release added is kept
	device     *DeviceRecord
	identities []IdentityRecord // by client id
	damaged    error
}

// Exists reports whether the device is connected, as far as this file knows: a
// device or an identity is stored, or was and cannot be read (see Damaged).
func (f *IdentityFile) Exists() bool {
	p := f.now.Load()
	return p.damaged != nil || len(p.records) > 0
}

// Damaged says why what is stored cannot be read; nil if it can, or if nothing
// is stored. The files were left as they are. FixOf gives the next step. It
// may heal: see Check.
func (f *IdentityFile) Damaged() error { return f.now.Load().damaged }

// Device returns the device's record. ErrNotFound if there is none; the error
// of Damaged.
func (f *IdentityFile) Device() (DeviceRecord, error) { return f.now.Load().deviceRecord() }

// Identities returns all identities in the order of client ids. The caller
// must not change what they point to.
func (f *IdentityFile) Identities() ([]IdentityRecord, error) {
	p := f.now.Load()
	return slices.Clone(p.identities), p.damaged
}

// Health returns how identity.db stands.
func (f *IdentityFile) Health() Health {
	h := f.db.Health()
	if err := f.Damaged(); err != nil {
		h.Problem, h.Fix = err.Error(), FixOf(err)
	}
	return h
}

// Close releases the files.
func (f *IdentityFile) Close() error {
	f.write.Lock()
	defer f.write.Unlock()
	return f.db.Close()
}

// Update runs fn and stores what it changed, in one commit; then the backup
// copy, then the marker. The first use makes the files. When it returns nil
// the change survives a power cut; after any error everything is as it was.
// Errors: fn's own; that of Damaged; ErrReadOnly and ErrDetached when nothing
// can be written now (try again later: nothing was begun). On ext4 about
// 270 KB of flash, journal included (firmware-notes/flash-wear.md).
func (f *IdentityFile) Update(fn func(*IdentityTx) error) error {
	f.write.Lock()
	defer f.write.Unlock()
	old := f.now.Load()
	if old.damaged != nil {
		return old.damaged
	}
	tx := &IdentityTx{records: maps.Clone(old.records), changed: map[place]bool{}}
	if tx.records == nil {
		tx.records = map[place][]byte{}
	}
	if err := fn(tx); err != nil {
		return err
	}
	next, err := newPicture(tx.records)
	if err != nil {
		return err
	}
	if len(tx.changed) == 0 {
		return nil
	}
	if err := f.commit(old, next, tx.changed); err != nil {
		return err
	}
	f.now.Store(next)
	f.behind = true
	f.follow(context.Background())
	return nil
}

func (f *IdentityFile) commit(old, next *picture, changed map[place]bool) error {
	if len(old.records) == 0 && missing(f.db.path) {
		return f.create(context.Background(), next)
	}
	return f.db.Update(func(tx *Tx) error {
		for _, p := range inOrder(slices.Collect(maps.Keys(changed))) {
			if err := f.apply(tx, p, next.records[p]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (f *IdentityFile) apply(tx *Tx, p place, plain []byte) error {
	if plain != nil {
		return tx.put(p, plain)
	}
	if err := tx.remove(p); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	return nil
}

// create makes the key, if there is none, and the database.
func (f *IdentityFile) create(ctx context.Context, next *picture) error {
	d := f.db
	d.write.Lock()
	defer d.write.Unlock()
	if err := d.attached(); err != nil {
		return err
	}
	if err := d.relock(); err != nil {
		return err
	}
	// A Destroy that is not finished would take the new identity with it.
	if m, err := readMarker(f.markerPath(), d.o); err == nil && m != nil && m.State == markerDestroying {
		if err := f.finishDestroy(); err != nil {
			return err
		}
	}
	k, err := ensureKey(f.dir, f.o)
	if err != nil {
		return err
	}
	d.state.Lock()
	d.key = k
	d.state.Unlock()
	if err := d.replace(ctx, d.last.generation+1, next.source); err != nil {
		d.uninstall(false)
		return errors.Join(err, discard(d.path)) // an identity that the caller was told of as failed must not appear later
	}
	f.o.filled().Log.Info("identity database made", "path", d.path)
	return nil
}

// follow brings the backup copy and the marker up to the last commit. A
// failure is not the caller's: the commit stands, and Check tries again.
func (f *IdentityFile) follow(ctx context.Context) {
	d := f.db
	d.write.Lock()
	defer d.write.Unlock()
	err := d.backup(ctx, f.now.Load().source)
	if err == nil {
		f.backupChecked = true
		err = f.writeMarker(markerPresent)
	}
	f.behind = err != nil
	if err != nil {
		err = fmt.Errorf("backup copy or marker: %w", err)
		d.problem(err)
		d.o.Log.Warn("identity is stored, its backup copy is behind", "path", d.path, "error", err)
	}
}

func (f *IdentityFile) writeMarker(state string) error {
	text, err := f.markerNow(state).encode()
	if err != nil {
		return err
	}
	f.db.spent(int64(len(text)))
	return f.db.o.WriteFile(f.markerPath(), text)
}

func (f *IdentityFile) markerNow(state string) marker {
	m := marker{State: state, Generation: f.db.last.generation, Identities: mark(f.now.Load().identities)}
	if f.db.key != nil {
		m.Key = f.db.key.ID()
	}
	return m
}

func (f *IdentityFile) markerPath() string { return filepath.Join(f.dir, markerName) }
func (f *IdentityFile) keyPath() string    { return filepath.Join(f.dir, keyName) }

func (f *IdentityFile) signature() string {
	return signature(f.db.path, backupName(f.db.path), f.markerPath(), f.keyPath())
}

// newPicture decodes the records. A record that does not decode is ErrCorrupt.
func newPicture(records map[place][]byte) (*picture, error) {
	p := &picture{records: records}
	for _, at := range inOrder(slices.Collect(maps.Keys(records))) {
		switch at.bucket {
		case deviceBucket:
			if at.key != deviceKey {
				continue
			}
			p.device = new(DeviceRecord)
			if err := decode(at, records[at], p.device); err != nil {
				return nil, err
			}
		case identityBucket:
			var id IdentityRecord
			if err := decode(at, records[at], &id); err != nil {
				return nil, err
			}
			p.identities = append(p.identities, id)
		}
	}
	return p, nil
}

func (p *picture) deviceRecord() (DeviceRecord, error) {
	if p.damaged != nil {
		return DeviceRecord{}, p.damaged
	}
	if p.device == nil {
		return DeviceRecord{}, fmt.Errorf("device: %w", ErrNotFound)
	}
	return *p.device, nil
}

// source gives the records for a new file.
func (p *picture) source(emit func(place, []byte) error) error {
	for _, at := range inOrder(slices.Collect(maps.Keys(p.records))) {
		if err := emit(at, p.records[at]); err != nil {
			return err
		}
	}
	return nil
}

// inOrder sorts places by bucket and key. slices.SortFunc would be a copy of
// its code for this type alone.
func inOrder(places []place) []place {
	sort.Slice(places, func(i, j int) bool {
		a, b := places[i], places[j]
		return a.bucket < b.bucket || a.bucket == b.bucket && a.key < b.key
	})
	return places
}
