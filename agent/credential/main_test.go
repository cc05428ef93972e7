package credential

import (
	"context"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postern/agent/lifecycle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Every method at once, over renewals, an outage and a reassignment: for the
// race detector, and against deadlocks, which end the bubble.
func TestAllMethodsAtOnce(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.ca.life = 2 * time.Hour
		w.on()
		w.ca.assign(userIdentity(userID, "telemetry"))
		w.connect()
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		every := func(d time.Duration, f func()) {
			wg.Go(func() {
				for tick := time.NewTicker(d); ; {
					select {
					case <-tick.C:
						f()
					case <-ctx.Done():
						return
					}
				}
			})
		}
		every(17*time.Second, func() { _ = w.token(systemID) })
		every(31*time.Second, func() { w.List(); w.System(); w.Warnings(); w.Enrolment() })
		every(23*time.Second, func() {
			st, err := w.Resolve(Selector{"client_id", userID})
			if err == nil {
				w.Observe(userID, st.Credential, nil)
			}
		})
		every(7*time.Minute, func() { _ = w.Renew(ctx, "", nil) })
		every(41*time.Minute, func() { _, _ = w.Reconnect(ctx, w.onboarding(systemIdentity())) })
		every(59*time.Minute, func() { _ = w.Adopt(ctx) })
		every(53*time.Minute, func() { w.ca.unassign(userID) })
		every(83*time.Minute, func() { w.ca.assign(userIdentity(userID, "telemetry")) })
		w.wait(4 * time.Hour)
		w.ca.set(func(a *authority) { a.fail = down })
		w.wait(30 * time.Minute)
		w.ca.set(func(a *authority) { a.fail = nil })
		w.wait(20 * time.Minute)
		cancel()
		wg.Wait()
		w.wait(15 * time.Minute)
		w.expect(systemID, lifecycle.Connected)
		must(t, w.token(systemID))
	})
}

func TestRunEndsWhileTheAuthorityDoesNotAnswer(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.on()
		w.wait(time.Minute)
		w.connect()
		w.Device.mu.Lock()
		w.Device.auth = hanging{w.ca}
		w.Device.mu.Unlock()
		w.wait(10 * time.Minute) // a heartbeat hangs
		began := time.Now()
		w.off()
		if d := time.Since(began); d > time.Second {
			t.Errorf("took %s", d)
		}
	})
}

// hanging never answers a heartbeat.
type hanging struct{ *authority }

func (hanging) Assignments(ctx context.Context, _ *Credential, _ string) (Assignments, error) {
	<-ctx.Done()
	return Assignments{}, ctx.Err()
}

func (hanging) Heartbeat(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}
