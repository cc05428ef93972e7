package store

import (
	"context"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// VerifyFile checks a database file without its key, and without writing: its
// structure by our own reader, which maps nothing and believes no number in
// the file; then bbolt's own check, and a walk over every value. It is the body
// of the child process `store verify`; only there may a fault end the process.
// Errors: nil; ErrDamaged, ErrForeign, ErrNewer, ErrLocked, ErrUnsafe.
func VerifyFile(ctx context.Context, path string, o Options) error {
	o = o.filled()
	f, err := openDescriptor(path, o, true)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		err = checkStructure(ctx, f, info.Size(), o.MaxSize)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	h, err := mapFile(f, path, o, true)
	if err != nil {
		return err
	}
	err = h.view(func(tx *bolt.Tx) error { return walkAll(ctx, tx, o) })
	err = errors.Join(err, h.close(wasCaught(err)))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func walkAll(ctx context.Context, tx *bolt.Tx, o Options) error {
	var found error
	for err := range tx.Check() {
		if found == nil {
			found = fmt.Errorf("%w: %w", err, ErrDamaged)
		}
	}
	if found != nil {
		return found
	}
	own := tx.Bucket([]byte(ownBucket))
	if own == nil {
		return ErrForeign
	}
	if _, err := decodeHead(own.Get([]byte(headKey)), o.testOnlySchema); err != nil {
		return err
	}
	var touched byte // each value is read; whether it is authentic only the key can say
	err := eachSealed(tx, func(_ place, sealed []byte) error {
		for _, b := range sealed {
			touched ^= b
		}
		return ctx.Err()
	})
	_ = touched
	return err
}
