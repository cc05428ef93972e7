package credential

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/agent/lifecycle"
	"postern/store"
)

// board is the device's hardware: clocks that can be wrong, parts that can be
// replaced, a state directory. True time is the bubble's.
type board struct {
	mu        sync.Mutex
	skew      time.Duration // wall clock minus true time
	booted    time.Time
	suspended time.Duration
	boots     int
	synced    bool
	parts     []string
}

func (b *board) reading() lifecycle.Reading {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	return lifecycle.Reading{
		Wall: now.Add(b.skew).Round(0).UTC(), Boot: now.Sub(b.booted) + b.suspended,
		BootID: fmt.Sprintf("boot-%d", b.boots), Synchronised: b.synced,
	}
}

func (b *board) fingerprint() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.parts)
}

func (b *board) set(change func(*board)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(b)
}

// world is a device, its board and its authority.
type world struct {
	t       *testing.T
	dir     string
	board   *board
	ca      *authority
	auth    Authority // what Dial gives: ca, or something around it
	build   time.Time
	options func(*Options)
	store   store.Options
	wrap    func(identityFile) identityFile

	clock   *lifecycle.Clock
	contact *lifecycle.Contact
	file    *store.IdentityFile
	*Device
	stop   func()
	mu     sync.Mutex
	events []Event
	steps  []string
	log    *bytes.Buffer
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		t: t, dir: t.TempDir(), ca: newAuthority(t), build: time.Now().Add(-time.Hour), log: new(bytes.Buffer),
		board: &board{booted: time.Now(), synced: true, parts: []string{"serial=1", "mmc=2", "mac=3"}},
	}
	w.auth = w.ca
	return w
}

// in runs f in a bubble of simulated time.
func in(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.off()
		f(t, w)
	})
}

// on opens the state directory and starts the loop.
func (w *world) on() *world {
	w.t.Helper()
	w.open()
	w.start()
	return w
}

// open opens the state directory without the loop.
func (w *world) open() {
	w.t.Helper()
	file, err := store.OpenIdentity(context.Background(), w.dir, w.store)
	must(w.t, err)
	w.file = file
	var floor time.Time
	if dev, err := file.Device(); err == nil {
		floor = dev.Floor
	}
	w.clock = lifecycle.NewClock(lifecycle.ClockOptions{Source: w.board.reading, Build: w.build, Floor: floor})
	w.ca.set(func(a *authority) { a.clock = w.clock })
	w.contact = new(lifecycle.Contact)
	o := Options{
		File: file, Clock: w.clock, Contact: w.contact, Fingerprint: w.board.fingerprint, Event: w.record,
		Dial: func(store.DeviceRecord) (Authority, error) { return w.auth, nil },
		Log:  slog.New(slog.NewTextHandler(syncWriter{w}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if w.options != nil {
		w.options(&o)
	}
	var f identityFile = file
	if w.wrap != nil {
		f = w.wrap(file)
	}
	w.Device, err = open(o, f)
	must(w.t, err)
}

type syncWriter struct{ w *world }

func (s syncWriter) Write(p []byte) (int, error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return s.w.log.Write(p)
}

func (w *world) start() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	d := w.Device
	go func() { done <- d.Run(ctx) }()
	w.stop = func() {
		cancel()
		must(w.t, <-done)
		w.stop = nil
	}
}

// off stops the loop and closes the file, as SIGTERM does.
func (w *world) off() {
	if w.stop != nil {
		w.stop()
	}
	if w.file != nil {
		must(w.t, w.file.Close())
		w.file = nil
	}
}

// reboot switches the device off for a while and on again.
func (w *world) reboot(off time.Duration) {
	w.t.Helper()
	w.off()
	w.wait(off)
	w.board.set(func(b *board) { b.boots++; b.booted, b.suspended = time.Now(), 0 })
	w.on()
}

// wait lets time pass and everything happen that is due.
func (w *world) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// await lets time pass until ok, at most limit.
func (w *world) await(limit time.Duration, what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(limit); !ok(); w.wait(time.Second) {
		if time.Now().After(end) {
			w.t.Fatalf("%s: not within %s\n%s", what, limit, w.tail())
		}
	}
}

func (w *world) record(e Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

// seen lists the events of one kind.
func (w *world) seen(kind string) []Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	var some []Event
	for _, e := range w.events {
		if e.Kind == kind {
			some = append(some, e)
		}
	}
	return some
}

func (w *world) forgetEvents() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events, w.steps = nil, nil
	w.log.Reset()
}

func (w *world) tail() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(w.log.String()), "\n")
	return strings.Join(lines[max(0, len(lines)-30):], "\n")
}

func (w *world) logged() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.String()
}

// onboarding is what an operator would type.
func (w *world) onboarding(id Identity) Onboarding {
	return Onboarding{
		AuthorityURL: authURL, RootPEM: w.ca.rootPEM(), RootSHA256: w.ca.rootSHA256(), Claim: w.ca.claim(id),
		Steps: func(s string) { w.mu.Lock(); defer w.mu.Unlock(); w.steps = append(w.steps, s) },
	}
}

// connect connects the device as its system-assigned identity.
func (w *world) connect() Standing {
	w.t.Helper()
	st, err := w.Connect(context.Background(), w.onboarding(systemIdentity()))
	must(w.t, err)
	return st
}

// token makes a token call with the credential in use, as the broker would.
func (w *world) token(id string) error {
	w.t.Helper()
	st, ok := w.Standing(id)
	if !ok || st.Credential == nil || !st.State.MayIssue() {
		return fmt.Errorf("no credential to use: %s", st.State)
	}
	w.ca.mu.Lock()
	err := w.ca.begin(context.Background(), "token")
	if err == nil {
		err = w.ca.valid(st.Credential)
	}
	w.ca.mu.Unlock()
	w.Observe(id, st.Credential, err)
	return err
}

func (w *world) standing(id string) Standing {
	w.t.Helper()
	st, ok := w.Standing(id)
	if !ok {
		w.t.Fatalf("identity %s is not here; the device is %s", id, st.State)
	}
	return st
}

func (w *world) expect(id string, want lifecycle.State) Standing {
	w.t.Helper()
	st := w.standing(id)
	if st.State != want {
		w.t.Fatalf("state of %s: got %s (%s), want %s\n%s", id, st.State, st.Reason, want, w.tail())
	}
	return st
}

// serial is the serial number of the certificate in use.
func (w *world) serial(id string) string {
	w.t.Helper()
	c := w.standing(id).Credential
	if c == nil {
		w.t.Fatalf("%s has no credential", id)
	}
	return c.Leaf().SerialNumber.String()
}

// problem asserts that err is a Problem with that id and that it says what to do.
func problem(t *testing.T, err error, id string) *Problem {
	t.Helper()
	var p *Problem
	if !errors.As(err, &p) {
		t.Fatalf("got %v, want a problem %q", err, id)
	}
	if p.ID != id {
		t.Fatalf("problem: got %q (%v), want %q", p.ID, err, id)
	}
	if p.Fix == "" {
		t.Errorf("problem %q has no fix: %v", id, err)
	}
	return p
}

// copyDir is the state directory as a power cut at this instant leaves it.
func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	entries, err := os.ReadDir(from)
	must(t, err)
	for _, e := range entries {
		in, err := os.Open(filepath.Join(from, e.Name()))
		must(t, err)
		out, err := os.OpenFile(filepath.Join(to, e.Name()), os.O_CREATE|os.O_WRONLY, 0o600)
		must(t, err)
		_, err = io.Copy(out, in)
		must(t, errors.Join(err, in.Close(), out.Close()))
	}
	return to
}
