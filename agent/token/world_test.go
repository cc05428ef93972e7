package token

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/platform"
	"postern/store"
)

const (
	systemID = "7b1e0000-0000-4000-8000-000000000001"
	userID   = "7b1e0000-0000-4000-8000-000000000002"
	vault    = "https://vault.azure.net"
	graph    = "https://graph.microsoft.com/"
)

// world is a device: clocks that go with the time of the test's bubble, an
// issuer that can be reached or not, identities, and a broker over them.
type world struct {
	t      *testing.T
	start  time.Time
	device *clocks
	clock  *lifecycle.Clock
	issuer *fakeIssuer
	ids    *fakeIdentities
	events *eventList
	log    *syncBuffer
	*Broker
}

// newWorld returns a world with a system-assigned identity, Connected, whose
// issuer gives tokens of one hour. change may alter the broker's options.
func newWorld(t *testing.T, change ...func(*Options)) *world {
	t.Helper()
	w := &world{t: t, start: time.Now(), device: newClocks("boot-1"), events: new(eventList), log: new(syncBuffer)}
	w.clock = lifecycle.NewClock(lifecycle.ClockOptions{Source: w.device.read})
	contact := new(lifecycle.Contact)
	w.issuer = &fakeIssuer{life: time.Hour}
	w.ids = &fakeIdentities{standings: map[string]credential.Standing{}, clock: w.clock, contact: contact}
	w.ids.add(credential.SystemAssigned, systemID)
	w.restart(append([]func(*Options){func(o *Options) { o.Contact = contact }}, change...)...)
	return w
}

// restart makes a new broker over the same device, as a new process would.
func (w *world) restart(change ...func(*Options)) {
	o := Options{
		Identities: w.ids, Issuer: w.issuer, Clock: w.clock, Audit: w.events.add,
		Log: slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, c := range change {
		c(&o)
	}
	w.Broker = NewBroker(o)
}

// run runs the broker's loop, and the heartbeat of the device, until stop is called.
func (w *world) run() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	b := w.Broker
	go func() { done <- b.Run(ctx) }()
	go w.beat(ctx)
	return func() {
		w.t.Helper()
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	}
}

// beat is contact every five minutes, while there is a link.
func (w *world) beat(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(5 * time.Minute):
		}
		w.issuer.mu.Lock()
		err := w.issuer.err
		w.issuer.mu.Unlock()
		if err == nil {
			w.contact.Seen(w.clock.Now())
		}
	}
}

// ask asks as uid 1001 for the system-assigned identity.
func (w *world) ask(resource string) (Token, error) {
	return w.Token(w.t.Context(), request(systemID, resource))
}

func (w *world) mustAsk(resource string) Token {
	w.t.Helper()
	got, err := w.ask(resource)
	if err != nil {
		w.t.Fatalf("token for %s: %v", resource, err)
	}
	return got
}

func request(clientID, resource string) Request {
	return Request{
		ClientID: clientID, Resource: resource, Flavour: "arc",
		Caller: Caller{Peer: "uid:1001", Listener: "127.0.0.1:40342", Agent: "test"},
	}
}

func by(r Request, peer platform.Peer) Request {
	r.Caller.Peer = peer
	return r
}

// bubble runs f inside a synctest bubble.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, f)
}

// after lets so much time pass.
func after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// clocks are the device's clocks.
type clocks struct {
	mu     sync.Mutex
	origin time.Time
	wall   time.Duration // steps of the wall clock
	boot   time.Duration // what suspends added
	id     string
	synced bool
}

func newClocks(id string) *clocks { return &clocks{origin: time.Now(), id: id, synced: true} }

func (c *clocks) read() lifecycle.Reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	since := time.Since(c.origin)
	return lifecycle.Reading{
		Wall: c.origin.Add(since + c.wall).Round(0).UTC(), Boot: since + c.boot, BootID: c.id, Synchronised: c.synced,
	}
}

func (c *clocks) set(f func(*clocks)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c)
}

// reboot starts the boot-time clock anew. The wall clock goes on, but for step.
func (c *clocks) reboot(id string, step time.Duration) {
	c.set(func(c *clocks) {
		c.origin, c.wall = time.Now(), c.wall+step
		c.boot, c.id = 0, id
	})
}

// eventList is what audit would be told.
type eventList struct {
	mu  sync.Mutex
	all []Event
}

func (l *eventList) add(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, e)
}

func (l *eventList) list() []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all)
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *syncBuffer) lines(part string) int { return strings.Count(b.String(), part) }

// wantClass fails unless err has the class.
func wantClass(t *testing.T, err error, class lifecycle.Class) {
	t.Helper()
	var e *lifecycle.Error
	if !errors.As(err, &e) || e.Class != class {
		t.Fatalf("got error %v, want class %v", err, class)
	}
}

// uids are peers enough to keep out of each other's gates and quotas.
var uids = func() (all []platform.Peer) {
	for i := range uint32(64) {
		all = append(all, platform.UIDPeer(2000+i))
	}
	return all
}()

func secretOf(s string) store.Secret { return store.NewSecret(s) }

// gotFirstByte is what net/http does when an answer begins.
func gotFirstByte(ctx context.Context) {
	if trace := httptrace.ContextClientTrace(ctx); trace != nil && trace.GotFirstResponseByte != nil {
		trace.GotFirstResponseByte()
	}
}
