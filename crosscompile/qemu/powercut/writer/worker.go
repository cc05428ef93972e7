//go:build linux

package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"time"

	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/crosscompile/qemu/powercut"
	"postern/store"
)

// action is one thing that the agent does, named by the mark behind it.
type action string

// next is the mark that follows when the action is begun.
func (a action) next() string {
	if a == powercut.Renewed {
		return powercut.Pending // the key is stored first, and has a mark of its own
	}
	return string(a)
}

// life is what happens to one identity from its enrolment to its end.
func life() []action {
	return []action{
		powercut.Connected, powercut.Refreshed, powercut.Refreshed, powercut.Renewed, powercut.Refreshed, powercut.Renewed,
		powercut.Refreshed, powercut.Refreshed, powercut.Renewed, powercut.Refreshed, powercut.Renewed, powercut.Refreshed, powercut.Disconnected,
	}
}

// worker plays lives of an identity. Its clock is simulated: a renewal needs
// half a minute's distance to the one before.
type worker struct {
	file   *store.IdentityFile
	cache  *store.Cache
	board  *board
	device *credential.Device
	auth   *authority
	clock  *lifecycle.Clock
	ticks  *atomic.Int64

	settle     bool
	tokens     int // in a round
	seq, round uint64
	at         int // in life
	fresh      *rand.Rand
}

func newWorker(f *store.IdentityFile, c *store.Cache, b *board, last *powercut.Mark, found powercut.State) (*worker, error) {
	w := &worker{file: f, cache: c, board: b, ticks: new(atomic.Int64), fresh: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))}
	serial := int64(100)
	if last != nil {
		w.seq, w.round, serial = last.Seq+1, max(last.Round, found.Round), max(last.Serial, found.Serial)
		w.ticks.Store(int64(w.seq) * 2)
	}
	if found.Exists {
		w.at = 1
	}
	w.clock = lifecycle.NewClock(lifecycle.ClockOptions{Build: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Source: w.reading})
	var err error
	if w.auth, err = newAuthority(w.clock, serial); err != nil {
		return nil, err
	}
	w.auth.asked = func() error { return w.mark(powercut.Pending, powercut.Renewed) }
	w.device, err = credential.Open(credential.Options{
		File: f, Clock: w.clock,
		Dial: func(store.DeviceRecord) (credential.Authority, error) { return w.auth, nil },
	})
	return w, err
}

// reading is a clock that is right and moves an hour a mark.
func (w *worker) reading() lifecycle.Reading {
	passed := time.Duration(w.ticks.Load()) * time.Hour
	return lifecycle.Reading{
		Wall: time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC).Add(passed), Boot: passed, BootID: "guest", Synchronised: true,
	}
}

// plan is what is left of the life.
func (w *worker) plan() []action { return life()[w.at:] }

// step does the next action and acknowledges it.
func (w *worker) step(ctx context.Context) error {
	now := w.plan()[0]
	w.at = (w.at + 1) % len(life())
	if err := w.do(ctx, now); err != nil {
		return fmt.Errorf("%s after mark %d: %w", now, w.seq-1, err)
	}
	return w.mark(string(now), w.plan()[0].next())
}

func (w *worker) do(ctx context.Context, now action) error {
	switch now {
	case powercut.Connected:
		_, err := w.device.Connect(ctx, credential.Onboarding{AuthorityURL: "https://authority.invalid", RootPEM: w.auth.rootPEM(), Claim: store.NewSecret("claim")})
		return err
	case powercut.Renewed:
		return w.device.Renew(ctx, clientID, nil)
	case powercut.Disconnected:
		if err := w.device.Disconnect(ctx, true, nil); err != nil {
			return err
		}
		return w.cache.Drop()
	}
	return w.refresh(ctx)
}

// refresh is one round of the broker: the tokens that were due, the contact,
// what the audit ring has to say, one commit.
func (w *worker) refresh(ctx context.Context) error {
	w.round++
	now := w.clock.Now()
	change := store.Change{
		Contact: &store.ContactRecord{LastContact: now.Wall, ClockWall: now.Wall, ClockBoot: now.Boot, ClockBootID: now.BootID},
		Audit:   []store.AuditEntry{{Seq: w.round, JSON: fmt.Appendf(nil, `{"seq":%d,"event":"token","padding":%q}`, w.round, w.noise(200))}},
	}
	for i := range w.tokens {
		change.PutTokens = append(change.PutTokens, store.TokenRecord{
			ClientID: clientID, Resource: fmt.Sprintf("https://resource-%d.example", i), AccessToken: w.noise(1500), Issued: now.Wall, Expires: now.Wall.Add(24 * time.Hour),
			BootID: now.BootID, IssuedBoot: now.Boot, TrustedWall: true, LastUsed: now.Wall, Owner: "uid:1000",
		})
	}
	w.cache.Stage(change)
	return w.cache.Commit(ctx)
}

// noise is text of n random bytes; tokens do not compress either.
func (w *worker) noise(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(w.fresh.Uint32())
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// mark writes what the store holds now, which it has acknowledged.
func (w *worker) mark(what, next string) error {
	s, err := powercut.StateOf(w.file, w.cache)
	if err != nil {
		return err
	}
	m := powercut.Mark{
		Seq: w.seq, What: what, Next: next, Identity: s.Identity, Cache: s.Cache, Serial: w.auth.serial, Round: w.round,
		Bytes: w.file.Health().Written + w.cache.Health().Written,
	}
	w.seq++
	w.ticks.Add(1)
	if w.settle {
		syscall.Sync()
	}
	return w.board.write(m)
}
