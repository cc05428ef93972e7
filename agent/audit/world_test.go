package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/agent/lifecycle"
	"postern/platform"
	"postern/store"
)

// world is a Log over a real cache, with clocks that go with the bubble's time.
type world struct {
	t     *testing.T
	dir   string
	clock *lifecycle.Clock
	out   *buffer
	cache *store.Cache
	*Log
}

func newWorld(t *testing.T, change ...func(*Options)) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), out: new(buffer)}
	origin := time.Now()
	w.clock = lifecycle.NewClock(lifecycle.ClockOptions{Source: func() lifecycle.Reading {
		return lifecycle.Reading{Wall: time.Now().UTC(), Boot: time.Since(origin), BootID: "0f3c", Synchronised: true}
	}})
	w.open(change...)
	return w
}

func (w *world) open(change ...func(*Options)) {
	w.t.Helper()
	cache, err := store.OpenCache(w.t.Context(), w.dir, store.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = cache.Close() })
	o := Options{
		Cache: cache, Clock: w.clock, UserName: userName,
		Log: slog.New(slog.NewTextHandler(w.out, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
	for _, c := range change {
		c(&o)
	}
	w.cache = cache
	if w.Log, err = Open(o); err != nil {
		w.t.Fatal(err)
	}
}

// restart is a new process; what was not committed is lost, as in a power cut.
func (w *world) restart() {
	w.t.Helper()
	if err := w.cache.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.open()
}

func userName(p platform.Peer) string {
	if p == "uid:1001" {
		return "telemetry"
	}
	return ""
}

func (w *world) run() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	done, l := make(chan error, 1), w.Log
	go func() { done <- l.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	}
}

func (w *world) lines() (all []string) {
	w.t.Helper()
	err := w.Read(w.t.Context(), 0, false, func(line []byte) error {
		all = append(all, string(line))
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

func (w *world) records() (all []Record) {
	w.t.Helper()
	for _, line := range w.lines() {
		var r Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			w.t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// commits counts those of the cache since its file was made.
func (w *world) commits() int { return int(w.cache.Health().Generation) - 1 }

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, f)
}

func after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func issued(resource, source string) Event {
	return Event{
		Name: TokenIssued, Reason: "grant 2", Flavour: "arc", Identity: "7b1e", Resource: resource,
		Peer: "uid:1001", Listener: "127.0.0.1:40342", Agent: "azsdk-python 1.19",
		Source: source, Token: "9f2c41aa", Expires: time.Now().Add(24 * time.Hour),
	}
}

func denied(peer platform.Peer, reason string) Event {
	return Event{
		Name: TokenDenied, Reason: reason, Flavour: "arc", Identity: "7b1e", Resource: "https://vault.azure.net",
		Peer: peer, Listener: "127.0.0.1:40342",
	}
}
