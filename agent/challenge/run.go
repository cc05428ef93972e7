package challenge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"postern/agent/lifecycle"
)

const (
	// rescanEvery is the guaranteed interval between comparisons.
	rescanEvery = lifecycle.Tick
	// rescanGap is the least time between rescans that events ask for: our own
	// files cause events too, and access drift is to be seen within 1 s.
	rescanGap = 500 * time.Millisecond

	maxUnknown = 16 // names kept for Health
)

// Run watches the directory, rescans it, and removes challenges whose time is
// over, until ctx ends; then it removes all that are left and Mint refuses.
// It returns nil. Call it once.
func (k *Keeper) Run(ctx context.Context) error {
	defer k.stop()
	eyes := &patrol{open: k.eyes, log: k.log}
	defer eyes.close()
	for {
		// In this order: what happens before the scan is seen by it, and what
		// happens after it causes a hint.
		k.setWatch(eyes.arm(k.path))
		k.scan()
		last := time.Now()
		hinted, done := k.wait(ctx, eyes.events())
		if done {
			return nil
		}
		if hinted && !sleep(ctx, rescanGap-time.Since(last)) {
			return nil
		}
	}
}

// wait returns when a rescan is due: hinted by an event, or by time.
func (k *Keeper) wait(ctx context.Context, events <-chan struct{}) (hinted, done bool) {
	timer := time.NewTimer(k.untilNext())
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false, true
	case <-k.hint:
		return true, false
	case <-events:
		return true, false
	case <-timer.C:
		return false, false
	}
}

// untilNext is the time until the next rescan or the next expiry. It is never
// more than 30 s, so that a suspend, which stops timers, delays it no longer.
func (k *Keeper) untilNext() time.Duration {
	now := k.age.now()
	tick := lifecycle.UntilTick(k.age.boot(), rescanEvery)
	k.mu.Lock()
	defer k.mu.Unlock()
	left, ok := k.keys.next(now)
	if !ok {
		return tick
	}
	return min(max(left, rescanGap), tick)
}

// Rescan asks Run to compare the directory soon. It never blocks.
func (k *Keeper) Rescan() {
	select {
	case k.hint <- struct{}{}:
	default:
	}
}

// stop removes every challenge and lets go of the directory.
func (k *Keeper) stop() {
	k.scanning.Lock()
	defer k.scanning.Unlock()
	k.mu.Lock()
	k.stopped = true
	h := k.dir
	k.dir = nil
	k.mu.Unlock()
	k.giveUp(h)
}

// scan compares what is there with what should be there.
func (k *Keeper) scan() {
	k.scanning.Lock()
	defer k.scanning.Unlock()
	k.age.wake()
	now := k.age.now()
	k.mu.Lock()
	gone := k.keys.expire(now)
	k.countGone(gone)
	k.mu.Unlock()
	k.unlink(gone)

	h, err := k.settle()
	if err != nil {
		k.lapse(err)
		return
	}
	defer k.release(h)
	if err := k.compare(h); err != nil {
		k.lapse(err)
		return
	}
	k.right()
}

// lapse refuses challenges from now on and voids those that are open: whoever
// can reach the directory now may have read them.
func (k *Keeper) lapse(err error) {
	_ = k.drift(err) // noted there
	k.mu.Lock()
	h := k.dir
	k.mu.Unlock()
	if h != nil {
		k.void(h)
	}
}

// compare looks at each name in the directory. Files of our own naming that
// belong to no key are removed; keys without a file are dropped; every other
// file is reported, never read and never removed.
func (k *Keeper) compare(h *held) error {
	missing := k.liveNames(h)
	entries, err := h.dir.Names()
	if err != nil {
		return err
	}
	var unknown []string
	for _, e := range entries {
		known := k.registered(e.Name)
		switch {
		case known && e.Ours:
			delete(missing, e.Name)
		case !known && e.Ours && ownName(e.Name):
			k.sweep(h, e.Name)
		default:
			unknown = append(unknown, e.Name)
		}
	}
	k.forget(missing)
	k.setUnknown(unknown)
	return nil
}

func (k *Keeper) liveNames(h *held) map[string]*entry {
	k.mu.Lock()
	defer k.mu.Unlock()
	names := make(map[string]*entry)
	for name, e := range k.keys.byName {
		if e.live && e.dir == h {
			names[name] = e
		}
	}
	return names
}

func (k *Keeper) registered(name string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keys.byName[name] != nil
}

// sweep removes a file that an earlier process, or a failed removal, left.
func (k *Keeper) sweep(h *held, name string) {
	if err := h.dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.log.Warn("challenge file left over", "path", k.path, "reason", err)
	}
}

// forget drops keys whose file somebody removed or replaced.
func (k *Keeper) forget(missing map[string]*entry) {
	dropped := 0
	k.mu.Lock()
	for _, e := range missing {
		if k.keys.remove(e) {
			dropped++
		}
	}
	k.counters.Expired += uint64(dropped)
	k.mu.Unlock()
	if dropped > 0 {
		k.log.Warn("challenge files were removed by somebody else", "path", k.path, "count", dropped)
	}
}

// setUnknown keeps the names that are not ours and reports them when they change.
func (k *Keeper) setUnknown(names []string) {
	slices.Sort(names)
	count := len(names)
	names = names[:min(count, maxUnknown)]
	k.mu.Lock()
	news := !slices.Equal(names, k.notice.unknown)
	k.notice.unknown = names
	k.mu.Unlock()
	if news && count > 0 {
		k.log.Warn("unknown files in the token directory are left alone", "path", k.path, "count", count, "names", fmt.Sprintf("%.200q", names))
	}
}

// sleep waits for d; false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
