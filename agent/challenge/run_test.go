package challenge

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
)

// plain is a watcher whose events the test sends.
type plain struct {
	mu      sync.Mutex
	armed   int
	openErr error // of opening
	err     error // of arming
	ch      chan struct{}
}

func (p *plain) arm(...string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed++
	return p.err
}

// fail sets what opening and arming say from now on.
func (p *plain) fail(openErr, armErr error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.openErr, p.err = openErr, armErr
}

func (p *plain) open() (watcher, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p, p.openErr
}

func (p *plain) events() <-chan struct{} { return p.ch }
func (p *plain) close() error            { return nil }

// inBubble runs a Keeper inside a synctest bubble, where boot time is bubble time.
func inBubble(t *testing.T, w *plain, body func(t *testing.T, h *host, k *Keeper)) {
	t.Helper()
	h := newHost(t)
	synctest.Test(t, func(t *testing.T) {
		h.t = t
		w.ch = make(chan struct{}, 1) // made here, or waiting for it would hold the bubble up
		start := time.Now()
		k, err := New(Options{Host: h, Boot: func() time.Duration { return time.Since(start) }})
		if err != nil {
			t.Fatal(err)
		}
		k.eyes = w.open
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx) }()
		synctest.Wait()
		body(t, h, k)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		h.t = nil
	})
}

// after lets d pass and everything due happen.
func after(d time.Duration) {
	time.Sleep(d) // bubble time
	synctest.Wait()
}

func TestFilesAreSweptWhenTheirLifeEnds(t *testing.T) {
	inBubble(t, &plain{}, func(t *testing.T, h *host, k *Keeper) {
		after(7 * time.Second)
		mint(t, k, alice)
		after(Life - time.Second)
		if n := len(h.names()); n != 1 {
			t.Fatalf("%d files before the end, want 1", n)
		}
		after(2 * time.Second)
		if n := len(h.names()); n != 0 {
			t.Errorf("%d files after the end, want 0", n)
		}
		if c := k.Health().Counters; c.Minted != 1 || c.Expired != 1 {
			t.Errorf("counters %+v", c)
		}
	})
}

func TestDriftIsSeenWithin30SecondsWithoutAnyEvent(t *testing.T) {
	inBubble(t, &plain{}, func(t *testing.T, h *host, k *Keeper) {
		after(time.Second)
		h.chmod(0o777)
		after(rescanEvery)
		if k.Health().Problem == "" {
			t.Error("drift was not noticed")
		}
		h.chmod(0o750)
		after(rescanEvery)
		if p := k.Health().Problem; p != "" {
			t.Errorf("still %q", p)
		}
	})
}

func TestDriftIsSeenWithinASecondByEvent(t *testing.T) {
	w := &plain{}
	inBubble(t, w, func(t *testing.T, h *host, k *Keeper) {
		h.chmod(0o777)
		w.ch <- struct{}{}
		after(time.Second)
		if k.Health().Problem == "" {
			t.Error("drift was not noticed")
		}
	})
}

func TestRefusedCallerBringsTheRescanForward(t *testing.T) {
	inBubble(t, &plain{}, func(t *testing.T, h *host, k *Keeper) {
		h.chmod(0o777)
		after(rescanEvery)
		h.chmod(0o750)
		mustDirError(t, k, "0777")
		after(time.Second)
		mint(t, k, alice)
	})
}

func TestOS3MissingDirectoryIsTriedEvery30Seconds(t *testing.T) {
	inBubble(t, &plain{}, func(t *testing.T, h *host, k *Keeper) {
		h.setSecure(errors.New("parent is not ours"))
		if err := os.Remove(h.dirs.Tokens); err != nil {
			t.Fatal(err)
		}
		after(rescanEvery)
		mustDirError(t, k, "parent is not ours")
		h.setSecure(nil)
		after(rescanEvery)
		mint(t, k, alice)
	})
}

func TestOS1WithoutInotifyTheDirectoryIsPolled(t *testing.T) {
	w := &plain{openErr: errors.New("too many open files")}
	inBubble(t, w, func(t *testing.T, h *host, k *Keeper) {
		if health := k.Health(); health.Watching || !strings.Contains(health.WatchReason, "too many open files") {
			t.Errorf("health %+v", health)
		}
		h.chmod(0o777)
		after(rescanEvery)
		if k.Health().Problem == "" {
			t.Error("drift was not noticed")
		}
		h.chmod(0o750)
		w.fail(nil, nil)
		after(rescanEvery)
		if health := k.Health(); !health.Watching || health.WatchReason != "" {
			t.Errorf("an instance is free again, but health is %+v", health)
		}
		w.fail(nil, errors.New("no space left on device"))
		after(rescanEvery)
		if health := k.Health(); health.Watching || !strings.Contains(health.WatchReason, "no space left") {
			t.Errorf("health %+v", health)
		}
	})
}

func TestOS1PollingIsLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	p := &patrol{open: func() (watcher, error) { return nil, errors.New("none left") }, log: slog.New(slog.NewTextHandler(&log, nil))}
	for range 5 {
		p.arm("/x")
	}
	p.close()
	if n := strings.Count(log.String(), "polling"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, log.String())
	}
}

func TestStopRemovesEveryChallengeAndRefusesNewOnes(t *testing.T) {
	h := newHost(t)
	k := h.keeper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	for range 5 {
		mint(t, k, alice)
	}
	_, secret := mint(t, k, bob)
	ticket := mustRedeem(t, k, bob, secret)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := len(h.names()); n != 0 {
		t.Errorf("%d files are left", n)
	}
	mustDirError(t, k, "stopping")
	if !ticket.Consume() {
		t.Error("an answer in flight must not be lost at the stop")
	}
	if h.open != 0 {
		t.Error("the directory is still open")
	}
}

func TestIdleKeeperWakesEvery30SecondsOnly(t *testing.T) {
	w := &plain{}
	inBubble(t, w, func(t *testing.T, _ *host, _ *Keeper) {
		w.mu.Lock()
		before := w.armed
		w.mu.Unlock()
		after(10 * time.Minute)
		w.mu.Lock()
		defer w.mu.Unlock()
		if n := w.armed - before; n > 20 {
			t.Errorf("woke %d times in 10 minutes, want 20", n)
		}
	})
}

func TestEventsOfOurOwnFilesDoNotScanWithoutEnd(t *testing.T) {
	w := &plain{}
	inBubble(t, w, func(t *testing.T, _ *host, _ *Keeper) {
		for range 1000 {
			select {
			case w.ch <- struct{}{}:
			default:
			}
			after(10 * time.Millisecond)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.armed > 10*int(time.Second/rescanGap)+2 {
			t.Errorf("%d rescans in 10 s", w.armed)
		}
	})
}

// The real watcher, outside a bubble. The deadline is far below the 30 s of
// the rescan, so only an event can be what woke the loop.
func TestRealWatcherSeesDriftReplacementAndForeignFiles(t *testing.T) {
	h := newHost(t)
	events := make(chan Event, 16)
	k, err := New(Options{Host: h, Event: func(e Event) { events <- e }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	until(t, "watching", func() bool { return k.Health().Watching })

	h.chmod(0o777)
	next(t, events, "access-drift")
	h.chmod(0o750)
	until(t, "right again", func() bool { return k.Health().Problem == "" })

	if err := os.WriteFile(filepath.Join(h.dirs.Tokens, "foreign"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	until(t, "foreign file", func() bool { return len(k.Health().Unknown) == 1 })

	for range 2 { // twice: the new directory must be watched too
		if err := os.Rename(h.dirs.Tokens, filepath.Join(t.TempDir(), "away")); err != nil {
			t.Fatal(err)
		}
		h.mkdir()
		next(t, events, "token-dir-replaced")
		h.chmod(0o755)
		next(t, events, "access-drift")
		h.chmod(0o750)
		until(t, "right again", func() bool { return k.Health().Problem == "" })
	}
}

func TestOS2OverflowLeadsToARescan(t *testing.T) {
	w, err := watch()
	if err != nil {
		t.Fatal(err)
	}
	n, ok := w.(*notify)
	if !ok {
		t.Fatalf("got %T", w)
	}
	n.w.Errors <- fsnotify.ErrEventOverflow
	<-n.events()
	if err := n.close(); err != nil {
		t.Fatal(err)
	}
}

// next takes events until one has the name.
func next(t *testing.T, events <-chan Event, name string) {
	t.Helper()
	deadline := time.After(15 * time.Second)
	for {
		select {
		case e := <-events:
			if e.Name == name {
				return
			}
		case <-deadline:
			t.Fatalf("no %s", name)
		}
	}
}

// until waits for something that has no channel of its own.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(15 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not seen: %s", what)
		}
	}
}
