package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
)

// source gives every value that a new file is to hold.
type source func(emit func(p place, plain []byte) error) error

// build makes a complete file under the temporary name path+".new": bbolt's
// first initialisation does not survive a power cut (about one in 25 leaves a
// file that cannot be opened), so nothing is ever initialised under its real
// name. The file is committed, closed, verified and synced; the caller gives
// it its name with put. It has a new id, hence new keys, and one generation.
// It returns the bytes written.
func build(ctx context.Context, path, kind string, k *Key, o Options, generation uint64, from source) (temp string, written int64, err error) {
	temp = path + ".new"
	if err := discard(temp); err != nil {
		return "", 0, err
	}
	written, err = fill(temp, kind, k, o, generation, from)
	if err == nil {
		err = verifyFirst(ctx, temp, o)
	}
	if err == nil {
		err = syncFile(temp, o)
	}
	if err != nil {
		return "", written, errors.Join(fmt.Errorf("make %s: %w", path, err), discard(temp))
	}
	return temp, written, nil
}

func fill(temp, kind string, k *Key, o Options, generation uint64, from source) (int64, error) {
	f, err := o.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return 0, err
	}
	h, err := mapFile(f, temp, o, false)
	if err != nil {
		return 0, err
	}
	hd, err := newHead(kind, o.testOnlySchema, k)
	if err == nil {
		err = h.update(func(b *bolt.Tx) error { return fillTx(b, hd, k, generation, from) })
	}
	written := initialBytes + h.allocated() + pageSize
	return written, errors.Join(err, h.close(wasCaught(err)))
}

// initialBytes is what bbolt writes to initialise a file.
const initialBytes = 4 * pageSize

func fillTx(b *bolt.Tx, hd head, k *Key, generation uint64, from source) error {
	plain, err := hd.encode()
	if err != nil {
		return err
	}
	own, err := b.CreateBucket([]byte(ownBucket))
	if err != nil {
		return err
	}
	if err := own.Put([]byte(headKey), plain); err != nil {
		return err
	}
	seal, err := newSealer(k, hd)
	if err != nil {
		return err
	}
	tx := &Tx{bolt: b, seal: seal, schema: hd.schema(), root: root{generation: generation - 1}}
	if err := from(tx.put); err != nil {
		return err
	}
	return tx.finish()
}

// put gives a file that build made its name, replacing what stands there, and
// makes that durable.
func putFile(temp, path string) error {
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(err, discard(temp))
	}
	return syncDir(filepath.Dir(path))
}

// discard removes a file of ours; it is no error if there is none.
func discard(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func syncFile(path string, o Options) error {
	f, err := o.OpenFile(path, os.O_RDWR)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
