package store

import (
	"context"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// loaded is an open file whose every value was found authentic.
type loaded struct {
	*handle
	head head
	seal *sealer
	root root
	bad  []place // values that are not authentic while the set is complete
}

// load opens and authenticates the file at path. Errors as openHandle, and
// ErrForeign, ErrWrongKey, ErrNewer. A file with bad values is ErrDamaged
// unless lenient.
func load(ctx context.Context, path, kind string, k *Key, o Options, readOnly, lenient bool) (*loaded, error) {
	h, err := openHandle(ctx, path, o, readOnly)
	if err != nil {
		return nil, err
	}
	return authenticate(h, kind, k, o, lenient)
}

// authenticate reads the whole file once: the head, the root, and every value
// with its tag. The handle is closed on error.
func authenticate(h *handle, kind string, k *Key, o Options, lenient bool) (*loaded, error) {
	l := &loaded{handle: h}
	err := h.view(func(tx *bolt.Tx) error {
		if err := l.readHead(tx, kind, k, o); err != nil {
			return err
		}
		return l.readAll(tx)
	})
	if err == nil && len(l.bad) > 0 && !lenient {
		err = fmt.Errorf("%d values, first %s: %w", len(l.bad), l.bad[0], ErrCorrupt)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", h.path, err), h.close(wasCaught(err)))
	}
	return l, nil
}

func (l *loaded) readHead(tx *bolt.Tx, kind string, k *Key, o Options) (err error) {
	own := tx.Bucket([]byte(ownBucket))
	if own == nil {
		return ErrForeign
	}
	if l.head, err = decodeHead(own.Get([]byte(headKey)), o.testOnlySchema); err != nil {
		return err
	}
	if l.head.Kind != kind {
		return fmt.Errorf("holds %q, want %q: %w", l.head.Kind, kind, ErrForeign)
	}
	if l.head.Key != k.ID() {
		return fmt.Errorf("key %s, want %s: %w", k.ID(), l.head.Key, ErrWrongKey)
	}
	if l.seal, err = newSealer(k, l.head); err != nil {
		return err
	}
	plain, generation, err := l.seal.open(place{ownBucket, rootKey}, own.Get([]byte(rootKey)))
	if err != nil {
		return err
	}
	l.root, err = decodeRoot(plain, generation)
	return err
}

// readAll compares what is there with what the root says should be there.
func (l *loaded) readAll(tx *bolt.Tx) error {
	found := root{generation: l.root.generation}
	err := eachSealed(tx, func(p place, sealed []byte) error {
		_, generation, err := l.seal.open(p, sealed)
		if err != nil {
			l.bad = append(l.bad, p)
			generation, _ = generationOf(sealed)
		}
		l.seal.toggle(&found.set, p, generation)
		found.count++
		return nil
	})
	if err != nil {
		return err
	}
	if found != l.root {
		return fmt.Errorf("%d values that are not the %d written last: %w", found.count, l.root.count, ErrDamaged)
	}
	return nil
}

// eachSealed walks every value of the file but our own. The slices are mapped.
func eachSealed(tx *bolt.Tx, f func(p place, sealed []byte) error) error {
	return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
		if string(name) == ownBucket {
			return nil
		}
		if b == nil {
			return fmt.Errorf("value outside a bucket: %w", ErrDamaged)
		}
		return b.ForEach(func(k, v []byte) error {
			if v == nil {
				return fmt.Errorf("bucket in a bucket: %w", ErrDamaged)
			}
			return f(place{string(name), string(k)}, v)
		})
	})
}

// records calls emit with every value of the file, opened. Bad values are left out.
func (l *loaded) records(emit func(p place, plain []byte) error) error {
	return l.view(func(tx *bolt.Tx) error {
		return eachSealed(tx, func(p place, sealed []byte) error {
			plain, _, err := l.seal.open(p, sealed)
			if errors.Is(err, ErrCorrupt) && l.isBad(p) {
				return nil
			}
			if err != nil {
				return err
			}
			return emit(p, plain)
		})
	})
}

func (l *loaded) isBad(p place) bool {
	for _, b := range l.bad {
		if b == p {
			return true
		}
	}
	return false
}
