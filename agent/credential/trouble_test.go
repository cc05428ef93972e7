package credential

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/agent/lifecycle"
	"postern/store"
)

// sick makes the file fail as a test wants it.
type sick struct {
	identityFile
	mu              sync.Mutex
	update, destroy error
}

// fail makes updates and the destruction end in these errors from now on.
func (s *sick) fail(update, destroy error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.update, s.destroy = update, destroy
}

func (s *sick) ailments() (update, destroy error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.update, s.destroy
}

func (s *sick) Update(f func(*store.IdentityTx) error) error {
	if err, _ := s.ailments(); err != nil {
		return err
	}
	return s.identityFile.Update(f)
}

func (s *sick) Destroy() error {
	if _, err := s.ailments(); err != nil {
		return err
	}
	return s.identityFile.Destroy()
}

func newSick(w *world) *sick {
	s := new(sick)
	w.wrap = func(f identityFile) identityFile { s.identityFile = f; return s }
	return s
}

var errIO = errors.New("input/output error")

// A store that cannot be written is said, tried again, and takes nothing away.
func TestFactsThatCannotBeStoredAreStoredLater(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		file := newSick(w)
		w.on()
		w.connect()
		w.wait(time.Minute)
		must(t, w.Renew(context.Background(), "", nil))
		file.fail(errIO, nil)
		must(t, w.token(systemID))
		w.wait(30 * time.Minute)
		if n := len(w.seen(EventStoreFailed)); n < 3 || n > 8 {
			t.Errorf("%d events in half an hour", n)
		}
		if w.ca.count("retire") != 0 {
			t.Error("the old certificate was withdrawn before the proof was stored")
		}
		w.expect(systemID, lifecycle.Connected)
		file.fail(nil, nil)
		w.wait(10 * time.Minute)
		if records, _ := w.file.Identities(); records[0].Current.Proven.IsZero() || w.ca.count("retire") != 1 {
			t.Error("the proof was not stored later")
		}
	})
}

func TestRejectionThatCannotBeStoredStillCounts(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		file := newSick(w)
		w.on()
		w.connect()
		file.fail(errIO, nil)
		w.refuse("token")
		_ = w.token(systemID)
		w.wait(11 * time.Minute)
		_ = w.token(systemID)
		w.wait(time.Minute)
		w.expect(systemID, lifecycle.Rejected)
		file.fail(nil, nil)
		w.off()
		w.on()
		w.expect(systemID, lifecycle.Rejected) // stored at the end at the latest
	})
}

func TestConnectThatCannotBeStoredSaysSo(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		file := newSick(w)
		w.on()
		file.fail(errIO, nil)
		_, err := w.Connect(context.Background(), w.onboarding(systemIdentity()))
		if problem(t, err, "store"); !errors.Is(err, errIO) {
			t.Errorf("got %v", err)
		}
		if len(w.List()) != 0 {
			t.Errorf("half made: %+v", w.List())
		}
		file.fail(nil, nil)
		w.connect()
		file.fail(errIO, nil)
		if err := w.Adopt(context.Background()); !errors.Is(err, errIO) {
			t.Errorf("adopt: %v", err)
		}
		w.ca.assign(userIdentity(userID, "telemetry"))
		w.wait(10 * time.Minute)
		if _, ok := w.Standing(userID); ok {
			t.Error("an identity that is not stored is here")
		}
		file.fail(nil, nil)
		w.wait(20 * time.Minute)
		w.expect(userID, lifecycle.Connected)
	})
}

func TestKeysThatCannotBeDestroyedAreStillThere(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		file := newSick(w)
		w.on()
		w.connect()
		file.fail(nil, errIO)
		problem(t, w.Disconnect(context.Background(), true, nil), "store")
		w.expect(systemID, lifecycle.Connected)
		file.fail(nil, nil)
		must(t, w.Disconnect(context.Background(), true, nil))
	})
}

func TestExposedKeyThatCannotBeWithdrawnIsNamed(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.ca.assign(userIdentity(userID, "telemetry"))
		w.connect()
		user := w.standing(userID).Credential
		must(t, w.Expose("readable by uid 1001"))
		w.ca.set(func(a *authority) {
			a.fail = func(call string) error { return map[string]error{"retire": errDown}[call] }
		})
		_, err := w.Reconnect(context.Background(), w.onboarding(systemIdentity()))
		must(t, err)
		serial := user.Leaf().SerialNumber.String()
		if said := strings.Join(w.Warnings(), "\n"); !strings.Contains(said, serial) || !strings.Contains(strings.Join(w.steps, "\n"), serial) {
			t.Errorf("warnings: %s\nsteps: %q", said, w.steps)
		}
	})
}

func TestAuthorityThatCannotBeDialledIsAFailureLikeOthers(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		w.off()
		w.options = func(o *Options) {
			o.Dial = func(store.DeviceRecord) (Authority, error) { return nil, errors.New("not a URL") }
		}
		w.on()
		w.wait(time.Minute)
		if got := w.seen(EventContactFailed); len(got) == 0 || !strings.Contains(got[0].Reason, "not a URL") || got[0].Class != lifecycle.ClassTransient {
			t.Errorf("events: %+v", got)
		}
		problem(t, w.Renew(context.Background(), "", nil), "authority-unreachable")
		problem(t, w.Disconnect(context.Background(), false, nil), "record-left")
		must(t, w.Disconnect(context.Background(), true, nil))
		_, err := w.Connect(context.Background(), w.onboarding(systemIdentity()))
		if p := problemOf(t, err); p.ID != "authority-url" {
			t.Errorf("got %v", err)
		}
	})
}

// Without a heartbeat of its own an authority is asked for its list to learn
// the time, and the list does not count.
func TestTimeIsLearntFromTheListWithoutApplyingIt(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.auth = listing{w.ca, w.ca}
		w.on()
		w.ca.assign(userIdentity(userID, "telemetry"))
		w.connect()
		w.ca.unassign(userID)
		w.board.set(func(b *board) { b.synced, b.skew = false, -1000*day })
		w.reboot(time.Minute)
		w.wait(time.Hour)
		w.expect(systemID, lifecycle.ClockUntrusted)
		w.expect(userID, lifecycle.ClockUntrusted) // an untrusted clock deletes nothing
		if n := w.ca.count("assignments"); n < 5 {
			t.Errorf("asked %d times", n)
		}
		w.board.set(func(b *board) { b.synced, b.skew = true, 0 })
		w.await(16*time.Minute, "unassigned", func() bool { _, ok := w.Standing(userID); return !ok })
	})
}

// listing has assignments and no heartbeat.
type listing struct {
	Authority
	Assigner
}

func TestReconnectAsksWhichIdentityIsMeant(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		one, two := userIdentity(userID, "telemetry"), userIdentity(otherID, "backup")
		w.options = func(o *Options) { o.Static = []Identity{one, two} }
		w.auth = plain{w.ca}
		w.on()
		for _, id := range []Identity{one, two} {
			o := w.onboarding(id)
			o.Identity = id
			_, err := w.Connect(context.Background(), o)
			must(t, err)
		}
		w.wait(time.Hour)
		w.expect(userID, lifecycle.Connected) // a device without a system-assigned identity has a heartbeat, too
		_, err := w.Reconnect(context.Background(), w.onboarding(one))
		problem(t, err, "unknown-identity")
		o := w.onboarding(one)
		o.Identity.ClientID = userID
		_, err = w.Reconnect(context.Background(), o)
		must(t, err)
		if _, err := w.Resolve(Selector{}); !errors.Is(err, ErrAmbiguous) {
			t.Errorf("resolve: %v", err)
		}
	})
}

func TestProblemSaysTheVerbAndTheCause(t *testing.T) {
	p := &Problem{Op: "connect", Err: ErrConnected}
	if got := p.Error(); got != "connect: this device is already connected" {
		t.Errorf("got %q", got)
	}
	if !errors.Is(p, ErrConnected) {
		t.Error("the cause is lost")
	}
	busy := &BusyError{Op: "reconnect", PID: 7, Since: time.Unix(0, 0)}
	if got := busy.Error(); got != "reconnect is under way in process 7 since 1970-01-01T00:00:00Z" {
		t.Errorf("got %q", got)
	}
}
