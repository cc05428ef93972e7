package store

import (
	"encoding/binary"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// ring is the extent of the audit bucket: keys are sequence numbers, 8 bytes
// big endian, so that their order is the order of time.
type ring struct {
	of    *sealer // of the file it was counted in
	last  uint64
	count int
	bytes int
}

func auditPlace(seq uint64) place {
	return place{auditBucket, string(binary.BigEndian.AppendUint64(nil, seq))}
}

func (r *ring) add(key string, bytes int) {
	if len(key) == 8 {
		r.last = max(r.last, binary.BigEndian.Uint64([]byte(key)))
	}
	r.count++
	r.bytes += bytes
}

// in returns the ring of the transaction's file: r, or counted anew if the
// file was replaced. Keeping last means that numbers are never given twice.
func (r ring) in(tx *Tx) (ring, error) {
	if r.of == tx.seal {
		return r, nil
	}
	anew := ring{of: tx.seal, last: r.last}
	err := tx.guard(func() error {
		b := tx.bolt.Bucket([]byte(auditBucket))
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			anew.add(string(k), len(v)-envelopeLeast)
			return nil
		})
	})
	return anew, err
}

// write appends entries and removes the oldest beyond the limits, most entries
// or the ring's bytes.
func (r *ring) write(tx *Tx, entries []AuditEntry, most int) error {
	for _, e := range entries {
		p := auditPlace(e.Seq)
		if e.Seq <= r.last { // written before, in a commit that was taken for lost
			if old, err := tx.get(p); err == nil {
				r.count--
				r.bytes -= len(old)
			}
		}
		if err := tx.put(p, e.JSON); err != nil {
			return err
		}
		r.add(p.key, len(e.JSON))
	}
	for r.count > most || r.bytes > ringBytes {
		p, bytes, ok, err := tx.first(auditBucket)
		if err != nil || !ok {
			return err
		}
		if err := tx.remove(p); err != nil {
			return err
		}
		r.count--
		r.bytes -= bytes
	}
	return nil
}

// first returns the place of the bucket's first value, and the value's length.
func (tx *Tx) first(bucket string) (p place, bytes int, ok bool, err error) {
	err = tx.guard(func() error {
		b := tx.bolt.Bucket([]byte(bucket))
		if b == nil {
			return nil
		}
		k, v := b.Cursor().First()
		if k == nil {
			return nil
		}
		p, bytes, ok = place{bucket, string(k)}, len(v)-envelopeLeast, true
		return nil
	})
	return p, bytes, ok, err
}

// Audit calls f with the entries whose Seq is at least from, oldest first,
// those included that are not on the disk yet, until f returns an error, which
// it passes on. f may use the cache. An entry that is not authentic is left out.
func (c *Cache) Audit(from uint64, f func(AuditEntry) error) error {
	entries, err := c.collect(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := f(e); err != nil {
			return err
		}
	}
	return nil
}

// LastAudit returns the highest sequence number that was staged or stored; 0 if none.
func (c *Cache) LastAudit() uint64 {
	c.commit.Lock()
	defer c.commit.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.ring.last
	if n := len(c.staged.audit); n > 0 {
		last = max(last, c.staged.audit[n-1].Seq)
	}
	return last
}

func (c *Cache) collect(from uint64) ([]AuditEntry, error) {
	c.commit.Lock()
	defer c.commit.Unlock()
	entries, err := c.stored(from)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.staged.audit {
		if e.Seq >= from && (len(entries) == 0 || e.Seq > entries[len(entries)-1].Seq) {
			entries = append(entries, e)
		}
	}
	return entries, nil
}

// stored reads the ring from the disk; nothing while there is no file.
func (c *Cache) stored(from uint64) (entries []AuditEntry, err error) {
	if c.db.Health().Mode == ModeMemory || c.db.Health().Mode == ModeClosed {
		return nil, nil
	}
	err = c.db.View(func(tx *Tx) error {
		return tx.guard(func() error {
			b := tx.bolt.Bucket([]byte(auditBucket))
			if b == nil {
				return nil
			}
			entries = tx.range8(b, from)
			return nil
		})
	})
	return entries, err
}

// range8 reads the authentic values under 8-byte keys from the given one on.
func (tx *Tx) range8(b *bolt.Bucket, from uint64) (entries []AuditEntry) {
	c := b.Cursor()
	for k, v := c.Seek(binary.BigEndian.AppendUint64(nil, from)); k != nil; k, v = c.Next() {
		plain, _, err := tx.seal.open(place{auditBucket, string(k)}, v)
		if err != nil || len(k) != 8 {
			continue
		}
		entries = append(entries, AuditEntry{binary.BigEndian.Uint64(k), plain})
	}
	return entries
}
