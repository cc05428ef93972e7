package credential

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"postern/agent/lifecycle"
	"postern/store"
)

func TestCorruptedIdentityIsLeftAloneUntilReconnect(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		w.off()
		for _, name := range []string{"identity.db", "identity.db.bak"} {
			must(t, os.WriteFile(filepath.Join(w.dir, name), []byte("this is no database"), 0o600))
		}
		before := bytesOf(t, w.dir)
		w.on()
		calls := w.ca.total()
		st, ok := w.System()
		if ok || st.State != lifecycle.Damaged || st.Reason == "" || st.Fix == "" {
			t.Errorf("standing: %+v", st)
		}
		if st, err := w.Resolve(Selector{}); err != nil || st.State != lifecycle.Damaged {
			t.Errorf("resolve: %+v, %v", st, err)
		}
		_, err := w.Connect(context.Background(), w.onboarding(systemIdentity()))
		problem(t, err, "state-damaged")
		problem(t, w.Disconnect(context.Background(), false, nil), "state-damaged")
		problem(t, w.Adopt(context.Background()), "state-damaged")
		w.wait(day)
		sameBytes(t, before, bytesOf(t, w.dir))
		if w.ca.total() != calls {
			t.Error("a damaged identity contacted the authority")
		}
		o := w.onboarding(systemIdentity())
		w.ca.set(func(a *authority) { a.fail = down })
		_, err = w.Reconnect(context.Background(), o)
		problem(t, err, "authority-unreachable")
		sameBytes(t, before, bytesOf(t, w.dir)) // only a certificate in hand replaces it
		w.ca.set(func(a *authority) { a.fail = nil })
		_, err = w.Reconnect(context.Background(), o)
		must(t, err)
		w.expect(systemID, lifecycle.Connected)
		w.reboot(time.Minute)
		w.wait(time.Minute)
		w.expect(systemID, lifecycle.Connected)
	})
}

func TestIdentityThatIsPutBackHealsWithoutARestart(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.connect()
		w.off()
		saved := copyDir(t, w.dir)
		must(t, os.Remove(filepath.Join(w.dir, "kek")))
		w.on()
		if st, _ := w.System(); st.State != lifecycle.Damaged {
			t.Fatalf("without its key: %s", st.State)
		}
		key, err := os.ReadFile(filepath.Join(saved, "kek"))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(w.dir, "kek"), key, 0o600))
		w.await(2*time.Minute, "healed", func() bool { st, ok := w.Standing(systemID); return ok && st.State == lifecycle.Connected })
	})
}

func TestNewerReleasesFileIsNotGivenUpByReconnect(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.wrap = func(f identityFile) identityFile { return newer{f} }
		w.on()
		_, err := w.Reconnect(context.Background(), w.onboarding(systemIdentity()))
		p := problemOf(t, err)
		if p.ID != "state-damaged" || w.ca.total() != 0 {
			t.Errorf("got %v after %d calls", err, w.ca.total())
		}
	})
}

type newer struct{ identityFile }

func (newer) Damaged() error { return store.ErrNewer }
func (newer) Exists() bool   { return true }

func problemOf(t *testing.T, err error) *Problem {
	t.Helper()
	var p *Problem
	if !errors.As(err, &p) {
		t.Fatalf("got %v, want a problem", err)
	}
	return p
}
