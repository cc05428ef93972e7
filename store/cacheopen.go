package store

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
)

// OpenCache opens cache.db in the state directory dir, or makes it. A damaged
// file is moved to cache.db.corrupt-TIME (one is kept) and made anew; where
// that is not possible the cache works in memory and says so in Health. Errors:
// ErrLocked, ErrRemote, fs.ErrNotExist without the directory, ErrUnchecked when
// the context ended.
func OpenCache(ctx context.Context, dir string, o Options) (*Cache, error) {
	if o.MaxSize <= 0 {
		o.MaxSize = cacheMaxSize
	}
	if o.AuditRecords <= 0 {
		o.AuditRecords = ringEntries
	}
	d, err := begin(filepath.Join(dir, cacheName), nil, o)
	if err != nil {
		return nil, err
	}
	c := &Cache{dir: dir, o: o, db: d, tokens: map[TokenKey]TokenRecord{}}
	c.staged.reset()
	d.expendable = true
	d.memory = c.source
	if err := c.start(ctx); errors.Is(err, ErrLocked) || err != nil && ctx.Err() != nil {
		return nil, errors.Join(err, d.Close())
	}
	return c, nil
}

// start opens the file, makes it or rebuilds it, and reads what it holds.
func (c *Cache) start(ctx context.Context) error {
	c.failed = c.begin(ctx)
	if c.failed != nil && ctx.Err() == nil {
		c.seen = c.signature()
		c.db.problem(c.failed)
	}
	switch { // said once, however often it is tried
	case c.failed != nil && ctx.Err() == nil && !c.said:
		c.said = true
		c.db.o.Log.Warn("cache works in memory", "path", c.db.path, "error", c.failed)
	case c.failed == nil && c.said:
		c.said = false
		c.db.o.Log.Info("cache works on the disk again", "path", c.db.path)
	}
	return c.failed
}

func (c *Cache) begin(ctx context.Context) error {
	d := c.db
	d.write.Lock()
	defer d.write.Unlock()
	k, err := cacheKey(c.dir, c.o)
	if err != nil {
		return err
	}
	d.state.Lock()
	d.key = k
	d.state.Unlock()
	d.uninstall(false) // made by an attempt that did not end well
	err = d.reopen(ctx)
	switch {
	case err == nil:
		d.acknowledge()
	case errors.Is(err, fs.ErrNotExist):
		err = d.replace(ctx, 1, c.source)
	case errors.Is(err, ErrDamaged):
		err = d.remake(ctx, err)
	}
	if err != nil {
		return err
	}
	c.opened = true
	return c.read()
}

// cacheKey loads the state directory's key. It makes one only where there is
// no identity that an earlier key belongs to.
func cacheKey(dir string, o Options) (*Key, error) {
	k, err := LoadKey(filepath.Join(dir, keyName), o)
	if !errors.Is(err, ErrNotFound) {
		return k, err
	}
	for _, name := range []string{identityName, identityName + ".bak", markerName} {
		if !missing(filepath.Join(dir, name)) {
			return nil, err
		}
	}
	return ensureKey(dir, o)
}

// read fills the memory from the file; what was staged meanwhile wins.
func (c *Cache) read() error {
	tokens, contact, found := map[TokenKey]TokenRecord{}, ContactRecord{}, ring{of: c.db.file.seal}
	err := c.db.file.records(func(p place, plain []byte) error {
		switch p.bucket {
		case tokenBucket:
			var t TokenRecord
			if err := decode(p, plain, &t); err != nil {
				return err
			}
			tokens[t.key()] = t
		case contactBucket:
			return decode(p, plain, &contact)
		case auditBucket:
			found.add(p.key, len(plain))
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.ring = found
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range c.staged.tokens {
		delete(tokens, k)
	}
	maps.Copy(tokens, c.tokens)
	if c.staged.contact {
		contact = c.contact
	}
	c.tokens, c.contact = tokens, contact
	c.bytes = 0
	for _, t := range c.tokens {
		c.bytes += t.size()
	}
	return nil
}

// ensure opens the file if that was not possible so far.
func (c *Cache) ensure(ctx context.Context) error {
	if c.opened {
		return nil
	}
	if err := c.db.attached(); err != nil {
		return err
	}
	if c.failed != nil && settledBy(c.failed) && c.signature() == c.seen {
		return c.failed // nothing has changed: not worth a child process every 30 s
	}
	return c.start(ctx)
}

func (c *Cache) signature() string {
	return signature(c.db.path, filepath.Join(c.dir, keyName))
}
