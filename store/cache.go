package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sort"
	"sync"

	berrors "go.etcd.io/bbolt/errors"
)

// Cache keeps what may be lost: tokens, the last contact, the audit ring. All
// but the ring is held in memory; the disk is a copy that survives a restart.
// When nothing can be written, everything goes on in memory, and what was
// staged waits, bounded. Safe for concurrent use.
type Cache struct {
	dir string
	o   Options
	db  *DB

	commit sync.Mutex // one Commit, Check, Drop or Audit at a time; taken before mu
	opened bool       // the file was opened, made or rebuilt since start
	failed error      // why it was not
	said   bool       // in the log, that it works in memory
	seen   string     // the files' signature then
	owed   bool       // a Commit failed, or the file was made anew, since the last Commit that did not
	ring   ring       // what the file's audit bucket holds; guarded by commit

	mu      sync.Mutex // guards what follows; never held across I/O
	tokens  map[TokenKey]TokenRecord
	bytes   int // of tokens
	contact ContactRecord
	staged  staged
	dropped int
}

// TokenKey names a cached token.
type TokenKey struct{ ClientID, Resource string }

func (t TokenRecord) key() TokenKey { return TokenKey{t.ClientID, t.Resource} }

func (k TokenKey) place() place { return place{tokenBucket, k.ClientID + "\x00" + k.Resource} }

// Change is what Stage takes. Drops come before puts.
type Change struct {
	PutTokens  []TokenRecord
	DropTokens []TokenKey
	Contact    *ContactRecord // nil: unchanged
	Audit      []AuditEntry   // in the order of Seq, each higher than all before
}

// AuditEntry is one record of the audit ring. JSON is opaque here.
type AuditEntry struct {
	Seq  uint64
	JSON []byte
}

// Limits of the cache. Beyond them the newcomer is refused (tokens) or the
// oldest goes (audit).
const (
	maxTokens     = 1024
	maxTokenBytes = 6 << 20
	ringEntries   = 2000 // unless Options.AuditRecords says another number
	ringBytes     = 1 << 20
)

// Buckets of cache.db.
const (
	tokenBucket   = "token"
	contactBucket = "contact"
	contactKey    = "contact"
	auditBucket   = "audit"
)

// Tokens returns all tokens, those included that are not on the disk yet, in
// the order of client id and resource.
func (c *Cache) Tokens() []TokenRecord {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sorted()
}

// Contact returns what is remembered of the authority.
func (c *Cache) Contact() ContactRecord {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.contact
}

// sorted returns the tokens in order; mu is held.
func (c *Cache) sorted() []TokenRecord {
	list := make([]TokenRecord, 0, len(c.tokens))
	for _, t := range c.tokens {
		list = append(list, t)
	}
	sortTokens(list)
	return list
}

func sortTokens(list []TokenRecord) {
	sort.Slice(list, func(i, j int) bool {
		a, b := &list[i], &list[j]
		return cmp.Or(cmp.Compare(a.ClientID, b.ClientID), cmp.Compare(a.Resource, b.Resource)) < 0
	})
}

// source gives tokens and contact for a new file.
func (c *Cache) source(emit func(place, []byte) error) error {
	c.mu.Lock()
	tokens, contact := c.sorted(), c.contact
	c.mu.Unlock()
	for _, t := range tokens {
		if err := emitJSON(emit, t.key().place(), t); err != nil {
			return err
		}
	}
	if contact == (ContactRecord{}) {
		return nil
	}
	return emitJSON(emit, place{contactBucket, contactKey}, contact)
}

// Stage notes a change; memory shows it at once, the disk after the next
// Commit. It never fails and does no I/O. What has no room is left out and
// counted in Health.Dropped.
func (c *Cache) Stage(change Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range change.DropTokens {
		c.drop(k)
	}
	for _, t := range change.PutTokens {
		c.put(t)
	}
	if change.Contact != nil {
		c.contact = *change.Contact
		c.staged.contact = true
	}
	c.dropped += c.staged.append(change.Audit, c.o.AuditRecords)
}

// put needs mu.
func (c *Cache) put(t TokenRecord) {
	k := t.key()
	old, known := c.tokens[k]
	room := c.bytes + t.size()
	if known {
		room -= old.size()
	}
	if !known && len(c.tokens) >= maxTokens || room > maxTokenBytes {
		c.dropped++
		return
	}
	c.tokens[k], c.bytes = t, room
	c.staged.tokens[k] = struct{}{}
}

// drop needs mu.
func (c *Cache) drop(k TokenKey) {
	if old, ok := c.tokens[k]; ok {
		c.bytes -= old.size()
		delete(c.tokens, k)
	}
	c.staged.tokens[k] = struct{}{}
}

func (t TokenRecord) size() int {
	return len(t.ClientID) + len(t.Resource) + len(t.AccessToken) + len(t.Owner) + len(t.BootID) + 200
}

// Commit writes everything staged in one commit, 60 to 100 KB of flash; nothing
// if nothing is staged. On an error everything stays staged, and memory goes
// on; the next Commit tries again.
func (c *Cache) Commit(ctx context.Context) error {
	c.commit.Lock()
	defer c.commit.Unlock()
	return c.flush(ctx)
}

// flush needs commit.
func (c *Cache) flush(ctx context.Context) error {
	c.mu.Lock()
	round := c.take()
	c.mu.Unlock()
	if round.empty() {
		return nil
	}
	err := c.ensure(ctx)
	if err == nil {
		err = c.write(round)
		if errors.Is(err, berrors.ErrMaxSizeReached) {
			err = c.write(round) // the failed commit has made a compact copy
		}
	}
	c.owed = err != nil
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.dropped += c.staged.putBack(round, c.o.AuditRecords)
		return fmt.Errorf("cache: %w", err)
	}
	return nil
}

func (c *Cache) write(round round) error {
	var next ring
	err := c.db.Update(func(tx *Tx) (err error) {
		if next, err = c.ring.in(tx); err != nil {
			return err
		}
		return round.apply(tx, &next, c.o.AuditRecords)
	})
	if err == nil {
		c.ring = next
	}
	return err
}

// Check puts right what changed outside, and opens the file if that was not
// possible before, and writes what a Commit could not. Call it every 30 s:
// while all is well it costs a few system calls and writes nothing, whatever is
// staged; when that is worth a commit is decided by whoever stages.
func (c *Cache) Check(ctx context.Context) error {
	c.commit.Lock()
	defer c.commit.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	before := c.db.Health().RecoveredAt
	if err := c.ensure(ctx); err != nil {
		return err
	}
	if err := c.db.Check(ctx); err != nil {
		return err
	}
	c.owed = c.owed || !c.db.Health().RecoveredAt.Equal(before)
	if c.owed && c.db.Health().Mode == ModeDisk {
		return c.flush(ctx)
	}
	return nil
}

// Drop forgets everything, on the disk too, and begins an empty file, under the
// new key if the old one was destroyed. An error means that it goes on in memory.
func (c *Cache) Drop() error {
	c.commit.Lock()
	defer c.commit.Unlock()
	c.mu.Lock()
	c.tokens, c.bytes, c.contact = map[TokenKey]TokenRecord{}, 0, ContactRecord{}
	c.staged.reset()
	c.mu.Unlock()
	c.ring, c.opened = ring{}, false
	if err := c.remove(); err != nil {
		c.db.problem(err)
		return fmt.Errorf("drop cache: %w", err)
	}
	return c.ensure(context.Background())
}

func (c *Cache) remove() error {
	d := c.db
	d.write.Lock()
	defer d.write.Unlock()
	if err := d.attached(); err != nil {
		return err
	}
	d.uninstall(false)
	d.suspect, d.last = false, root{}
	old := append(asides(c.dir, cacheName+"."+asideCache+"-"), d.path, d.path+".new")
	return removeAndSync(old...)
}

// Health returns how the cache stands. Mode is ModeMemory while the disk is not in use.
func (c *Cache) Health() Health {
	h := c.db.Health()
	if h.Mode == ModeReadOnly {
		h.Mode = ModeMemory
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	h.Dropped += c.dropped
	return h
}

// Close writes nothing: Commit before it. Memory stays readable.
func (c *Cache) Close() error {
	c.commit.Lock()
	defer c.commit.Unlock()
	return c.db.Close()
}
