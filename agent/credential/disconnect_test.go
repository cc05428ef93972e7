package credential

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/agent/lifecycle"
)

func TestDisconnectWithdrawsEveryCertificateThenDestroysTheKeys(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.ca.assign(userIdentity(userID, "telemetry"))
		sys := w.connect().Credential
		user := w.standing(userID).Credential
		w.wait(time.Minute)
		var steps []string
		must(t, w.Disconnect(context.Background(), false, func(s string) { steps = append(steps, s) }))
		if !w.ca.isRevoked(sys) || !w.ca.isRevoked(user) {
			t.Error("a certificate was not withdrawn")
		}
		if len(steps) != 3 || !strings.Contains(steps[0], "telemetry") {
			t.Errorf("steps: %q", steps) // the user-assigned one first: the others hang on the system identity
		}
		if len(w.List()) != 0 || len(w.seen(EventDisconnected)) != 2 {
			t.Errorf("left: %+v; events %+v", w.List(), w.seen(EventDisconnected))
		}
		if _, err := os.Stat(filepath.Join(w.dir, "kek")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the key-encryption key: %v", err)
		}
		problem(t, w.Disconnect(context.Background(), false, nil), "state-unenrolled")
		calls := w.ca.total()
		w.wait(day)
		if w.ca.total() != calls {
			t.Error("a disconnected device contacts the authority")
		}
		w.reboot(time.Minute)
		if st, ok := w.System(); ok || st.State != lifecycle.Unenrolled {
			t.Errorf("after a restart: %+v", st)
		}
	})
}

// ID8: without network disconnect refuses and names --local-only; with it the
// key is destroyed and the record left upstream is named.
func TestID8DisconnectWithoutNetwork(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.ca.assign(userIdentity(userID, "telemetry"))
		w.connect()
		w.ca.set(func(a *authority) { a.fail = down })
		before := bytesOf(t, w.dir)
		err := w.Disconnect(context.Background(), false, nil)
		p := problem(t, err, "record-left")
		if !strings.Contains(p.Fix, "--local-only") || p.State != lifecycle.Offline || !errors.Is(err, ErrUpstreamRecord) {
			t.Errorf("%+v", p)
		}
		sameBytes(t, before, bytesOf(t, w.dir))
		w.expect(systemID, lifecycle.Connected)
		calls := w.ca.total()
		var steps []string
		must(t, w.Disconnect(context.Background(), true, func(s string) { steps = append(steps, s) }))
		if w.ca.total() != calls {
			t.Error("--local-only contacted the authority")
		}
		said := strings.Join(steps, "\n")
		for _, word := range []string{authURL, machine, "telemetry"} {
			if !strings.Contains(said, word) || !strings.Contains(w.seen(EventDisconnected)[0].Reason, word) {
				t.Errorf("%q is not named:\n%s", word, said)
			}
		}
		if len(w.List()) != 0 {
			t.Error("an identity is left")
		}
	})
}

func TestDisconnectInOtherStates(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on().calm()
		st := w.connect()
		w.ca.set(func(a *authority) { a.fail = down })
		w.wait(time.Until(st.NotAfter) + time.Hour)
		w.ca.set(func(a *authority) { a.fail = nil })
		calls := w.ca.total()
		p := problem(t, w.Disconnect(context.Background(), false, nil), "record-left")
		if p.State != lifecycle.Expired || w.ca.total() != calls {
			t.Errorf("expired: %+v after %d calls", p, w.ca.total()-calls)
		}
		must(t, w.Disconnect(context.Background(), true, nil))

		w.connect()
		w.ca.set(func(a *authority) { a.deleted[systemID] = true })
		must(t, w.Disconnect(context.Background(), false, nil)) // gone upstream is what was wanted
	})
}
