package credential

import (
	"context"
	"sync"
)

// crewSize is how many identities are worked on at once.
const crewSize = 4

// crew is the background work of a Device: it can be stopped for an operation
// that needs the device for itself, and goes on afterwards.
type crew struct {
	mu     sync.Mutex
	base   context.Context // nil while Run does not run
	ctx    context.Context //nolint:containedctx // of the work that runs now
	cancel context.CancelFunc
	paused int
	wg     sync.WaitGroup
	slots  chan struct{}
}

func newCrew() *crew { return &crew{slots: make(chan struct{}, crewSize)} }

// open lets work start; the returned function stops it and waits.
func (c *crew) open(ctx context.Context) (shut func()) {
	c.mu.Lock()
	c.base = ctx
	c.ctx, c.cancel = context.WithCancel(ctx)
	c.mu.Unlock()
	return func() {
		c.mu.Lock()
		c.base = nil
		c.cancel()
		c.mu.Unlock()
		c.wg.Wait()
	}
}

// do runs f in the background; false if that is not possible now. f waits for
// one of the places and is not run at all if the crew is stopped before.
func (c *crew) do(f func(ctx context.Context), otherwise func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.base == nil || c.paused > 0 || c.ctx.Err() != nil {
		return false
	}
	ctx := c.ctx
	c.wg.Go(func() {
		select {
		case c.slots <- struct{}{}:
			defer func() { <-c.slots }()
			f(ctx)
		case <-ctx.Done():
			otherwise()
		}
	})
	return true
}

// pause stops the work, waits for it to end, and keeps new work from starting.
func (c *crew) pause() (resume func()) {
	c.mu.Lock()
	c.paused++
	if c.cancel != nil {
		c.cancel()
	}
	c.mu.Unlock()
	c.wg.Wait()
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.paused--; c.paused == 0 && c.base != nil {
			c.ctx, c.cancel = context.WithCancel(c.base)
		}
	}
}
