package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Destroy forgets the device and its identities for good: the marker announces
// it, the key-encryption key is overwritten and removed, which makes every copy
// of every file unreadable, then the files go, the marker last. A power cut in
// the middle leaves either the whole identity or none: whoever opens the
// directory next finishes the work. It may be repeated, and it is how a
// damaged identity is given up. The cache, sealed with the same key, is for
// Cache.Drop.
func (f *IdentityFile) Destroy() error {
	f.write.Lock()
	defer f.write.Unlock()
	d := f.db
	d.write.Lock()
	defer d.write.Unlock()
	if err := d.attached(); err != nil {
		return err
	}
	if err := d.relock(); err != nil {
		return err
	}
	if err := notRegular(f.markerPath()); err != nil {
		return err
	}
	if f.nothing() {
		return nil
	}
	if err := f.writeMarker(markerDestroying); err != nil {
		// It may have got its name all the same, and would end the identity at
		// the next start. Here, or at the next Check, it gives way again.
		f.behind = true
		return errors.Join(fmt.Errorf("destroy identity: %w", err), f.withdraw())
	}
	return f.finishDestroy()
}

// withdraw takes back what was announced, for a Destroy that could not begin.
func (f *IdentityFile) withdraw() error {
	if len(f.now.Load().records) == 0 {
		return nil // damaged: there is no marker to go back to
	}
	return f.writeMarker(markerPresent)
}

// nothing reports whether there is nothing to destroy.
func (f *IdentityFile) nothing() bool {
	for _, name := range []string{keyName, identityName, identityName + ".bak", markerName} {
		if !missing(filepath.Join(f.dir, name)) {
			return false
		}
	}
	return len(f.now.Load().records) == 0
}

// finishDestroy does what the marker announced. In memory it takes effect at
// once, whatever the disk says. It needs the database's write.
func (f *IdentityFile) finishDestroy() error {
	d := f.db
	d.uninstall(false)
	f.now.Store(&picture{})
	f.behind, f.backupChecked, d.suspect = false, false, false
	d.state.Lock()
	d.key, d.last = nil, root{}
	d.health.Mode, d.health.Problem, d.health.Fix = ModeClosed, "", ""
	d.state.Unlock()
	err := f.removeAll()
	if err != nil {
		err = fmt.Errorf("destroy identity: %w", err)
		d.problem(err)
	}
	return err
}

func (f *IdentityFile) removeAll() error {
	if err := overwrite(f.keyPath(), f.db.o); err != nil {
		return err
	}
	// A cut while the key file was written may have left it under a temporary
	// name, the platform's or our own.
	half := append(asides(f.dir, "."+keyName+"."), f.keyPath(), f.keyPath()+".tmp")
	if err := removeAndSync(half...); err != nil {
		return err
	}
	path := f.db.path
	rest := []string{path, path + ".new", backupName(path), backupName(path) + ".new"}
	rest = append(rest, asides(f.dir, identityName+"."+asideIdentity+"-")...)
	if err := removeAndSync(rest...); err != nil {
		return err
	}
	return removeAndSync(f.markerPath())
}

// overwrite puts zeros over the key. On flash the old cells may live on; that
// is why the file is also removed, and why what it sealed goes too.
func overwrite(path string, o Options) error {
	if notRegular(path) != nil {
		return nil //nolint:nilerr // no key of ours
	}
	file, err := o.OpenFile(path, os.O_WRONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err == nil {
		_, err = file.Write(make([]byte, min(info.Size(), keyLimit)))
	}
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

func removeAndSync(paths ...string) error {
	for _, p := range paths {
		if err := discard(p); err != nil {
			return err
		}
	}
	return syncDir(filepath.Dir(paths[0]))
}

// ensureKey returns the key of the state directory, made if there is none.
func ensureKey(dir string, o Options) (*Key, error) {
	filled := o.filled()
	lock, err := lockFile(filepath.Join(dir, keyLockName), filled)
	if err != nil {
		return nil, err
	}
	k, err := LoadKey(filepath.Join(dir, keyName), o)
	if errors.Is(err, ErrNotFound) {
		k, err = CreateKey(filepath.Join(dir, keyName), o)
	}
	return k, errors.Join(err, lock.Close())
}
