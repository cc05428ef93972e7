package store

import (
	"encoding/json"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// Tx is one consistent picture of a DB. It belongs to the function that got it
// and to one goroutine.
type Tx struct {
	bolt   *bolt.Tx
	seal   *sealer
	schema schema
	root   root // of the last commit; changed by put and remove, written by finish
	dirty  bool
	fault  error // what makes the file unusable, whatever the caller returns
}

// Get returns the value under key. Errors: ErrNotFound; ErrCorrupt if the
// value is not what was put there. A field that T does not know is ignored.
func Get[T any](tx *Tx, bucket, key string) (T, error) {
	var v T
	err := tx.read(place{bucket, key}, &v)
	return v, err
}

func (tx *Tx) read(p place, v any) error {
	plain, err := tx.get(p)
	if err != nil {
		return err
	}
	return decode(p, plain, v)
}

// Put stores v as JSON under key, which must not be empty. Bucket names that
// the caller chooses are free, except "postern".
func Put(tx *Tx, bucket, key string, v any) error {
	plain, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %w", place{bucket, key}, err)
	}
	return tx.put(place{bucket, key}, plain)
}

// Delete removes the value under key. ErrNotFound if there is none.
func Delete(tx *Tx, bucket, key string) error { return tx.remove(place{bucket, key}) }

// Each calls f with every value of bucket in the order of keys, until f
// returns an error, which it passes on. f may Put and Delete in an Update: it
// sees the keys that were there when Each began, as they then are.
func Each[T any](tx *Tx, bucket string, f func(key string, v T) error) error {
	keys, err := tx.keys(bucket)
	if err != nil {
		return err
	}
	for _, key := range keys {
		v, err := Get[T](tx, bucket, key)
		if errors.Is(err, ErrNotFound) {
			continue // taken away by f
		}
		if err != nil {
			return err
		}
		if err := f(key, v); err != nil {
			return err
		}
	}
	return nil
}

func decode(p place, plain []byte, v any) error {
	if err := json.Unmarshal(plain, v); err != nil {
		return fmt.Errorf("%s: %w", p, ErrCorrupt) // the cause would quote the value
	}
	return nil
}

func (tx *Tx) get(p place) (plain []byte, err error) {
	err = tx.guard(func() error {
		b := tx.bolt.Bucket([]byte(p.bucket))
		if b == nil {
			return fmt.Errorf("%s: %w", p, ErrNotFound)
		}
		sealed := b.Get([]byte(p.key))
		if sealed == nil {
			return fmt.Errorf("%s: %w", p, ErrNotFound)
		}
		plain, _, err = tx.seal.open(p, sealed)
		return err
	})
	return plain, err
}

func (tx *Tx) put(p place, plain []byte) error {
	if p.bucket == ownBucket || p.bucket == "" {
		return fmt.Errorf("%q is no bucket for values", p.bucket)
	}
	return tx.guard(func() error {
		b, err := tx.bolt.CreateBucketIfNotExists([]byte(p.bucket))
		if err != nil {
			return err
		}
		if p.bucket == auditBucket {
			b.FillPercent = 1 // keys only grow: half-empty pages would never be filled
		}
		if err := tx.forget(b, p); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		sealed, err := tx.seal.seal(p, tx.schema, tx.root.generation+1, plain)
		if err != nil {
			return err
		}
		if err := b.Put([]byte(p.key), sealed); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		tx.seal.toggle(&tx.root.set, p, tx.root.generation+1)
		tx.root.count++
		tx.dirty = true
		return nil
	})
}

func (tx *Tx) remove(p place) error {
	return tx.guard(func() error {
		b := tx.bolt.Bucket([]byte(p.bucket))
		if b == nil {
			return fmt.Errorf("%s: %w", p, ErrNotFound)
		}
		if err := tx.forget(b, p); err != nil {
			return err
		}
		tx.dirty = true
		return b.Delete([]byte(p.key))
	})
}

// forget takes the value that stands at p out of the root's sum. It must be
// authentic: otherwise its share in the sum is unknown, and the file is done for.
func (tx *Tx) forget(b *bolt.Bucket, p place) error {
	sealed := b.Get([]byte(p.key))
	if sealed == nil {
		return fmt.Errorf("%s: %w", p, ErrNotFound)
	}
	_, generation, err := tx.seal.open(p, sealed)
	if err != nil {
		return err
	}
	tx.seal.toggle(&tx.root.set, p, generation)
	tx.root.count--
	return nil
}

// finish seals the root of the commit that is about to happen.
func (tx *Tx) finish() error {
	tx.root.generation++
	sealed, err := tx.seal.seal(place{ownBucket, rootKey}, tx.schema, tx.root.generation, tx.root.encode())
	if err != nil {
		return err
	}
	return tx.bolt.Bucket([]byte(ownBucket)).Put([]byte(rootKey), sealed)
}

func (tx *Tx) keys(bucket string) (keys []string, err error) {
	err = tx.guard(func() error {
		b := tx.bolt.Bucket([]byte(bucket))
		if b == nil || bucket == ownBucket {
			return nil
		}
		return b.ForEach(func(k, _ []byte) error {
			keys = append(keys, string(k))
			return nil
		})
	})
	return keys, err
}

// guard keeps what goes wrong in the file apart from what the caller does wrong.
func (tx *Tx) guard(f func() error) error {
	if tx.fault != nil {
		return tx.fault
	}
	err := guard(f)
	if errors.Is(err, ErrDamaged) {
		tx.fault = err
	}
	return err
}
