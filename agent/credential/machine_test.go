package credential

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"postern/agent/lifecycle"
)

// step is one thing that happens to a device.
type step struct {
	Do  string
	Arg int // 0..99: how long, how wrong, which one
}

var deeds = []string{
	"wait minutes", "wait days", "link down", "link up", "clock wrong", "clock right", "reboot", "pull the plug", "token", "renew",
	"refuse", "relent", "lose answers", "assign", "unassign", "connect", "reconnect", "disconnect", "swap board", "adopt", "expose",
}

// history runs steps on a device and looks after each for what must never be.
type history struct {
	*world
	connected bool // what the answers to the operator say
	exposed   bool
	assigned  bool
	faulty    error
}

// Whatever happens in whatever order: the state is one that the facts allow,
// nothing contacts the authority that may not, no working credential is lost,
// and when the faults are taken away the device heals by itself.
func TestAnyHistoryLosesNoWorkingCredentialAndHeals(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
			return step{rapid.SampledFrom(deeds).Draw(rt, "do"), rapid.IntRange(0, 99).Draw(rt, "arg")}
		}), 1, 14).Draw(rt, "steps")
		var err error
		synctest.Test(t, func(t *testing.T) {
			h := &history{world: newWorld(t)}
			defer h.off()
			err = h.run(steps)
			if err != nil {
				err = fmt.Errorf("%w\n%s", err, h.tail())
			}
		})
		if err != nil {
			rt.Fatal(err)
		}
	})
}

func (h *history) run(steps []step) error {
	h.switchOn()
	h.connected = h.ask(h.Connect(context.Background(), h.onboarding(systemIdentity())))
	for i, s := range steps {
		calls, before := h.ca.total(), h.mute()
		h.do(s)
		if err := h.look(); err != nil {
			return fmt.Errorf("after step %d, %+v: %w", i, s, err)
		}
		passive := slices.Contains([]string{"wait minutes", "wait days", "link down", "link up", "refuse", "relent"}, s.Do)
		if n := h.ca.total() - calls; passive && before && h.mute() && n != 0 {
			return fmt.Errorf("step %d, %+v: %d calls in states that contact nobody", i, s, n)
		}
	}
	return h.heal()
}

func (h *history) switchOn() { h.on().calm() }

// mute reports whether no identity may contact the authority.
func (h *history) mute() bool {
	for _, st := range h.List() {
		if st.State.MayContact() && st.Exposed == "" {
			return false
		}
	}
	return true
}

func (h *history) ask(_ Standing, err error) bool {
	var p *Problem
	if err != nil && !errors.As(err, &p) {
		h.faulty = fmt.Errorf("an operator got %T: %w", err, err)
	}
	return err == nil
}

func (h *history) do(s step) {
	ctx := context.Background()
	switch s.Do {
	case "wait minutes":
		h.wait(time.Duration(s.Arg+1) * time.Minute)
	case "wait days":
		h.wait(time.Duration(s.Arg) * day / 10)
	case "link down":
		h.ca.set(func(a *authority) { a.fail = down })
	case "link up", "relent":
		h.ca.set(func(a *authority) { a.fail, a.lose = nil, nil })
	case "lose answers":
		h.ca.set(func(a *authority) { a.lose = down })
	case "refuse":
		h.refuse([]string{"token", "renew", "assignments"}[s.Arg%3])
	case "clock wrong":
		h.board.set(func(b *board) { b.synced, b.skew = false, time.Duration(s.Arg-50)*30*day })
	case "clock right":
		h.board.set(func(b *board) { b.synced, b.skew = true, 0 })
	case "swap board":
		h.board.set(func(b *board) { b.parts = []string{"serial=x", "mmc=y", "mac=z"} })
	default:
		h.act(ctx, s)
	}
	h.wait(time.Second)
}

func (h *history) act(ctx context.Context, s step) {
	switch s.Do {
	case "reboot":
		h.reboot(time.Duration(s.Arg) * time.Hour)
		h.calm()
	case "pull the plug":
		h.dir = copyDir(h.t, h.dir)
		h.reboot(time.Duration(s.Arg) * time.Second)
		h.calm()
	case "token":
		_ = h.token(systemID)
	case "renew":
		h.ask(Standing{}, h.Renew(ctx, "", nil))
	case "assign":
		h.ca.assign(userIdentity(userID, "telemetry"))
		h.assigned = true
	case "unassign":
		h.ca.unassign(userID)
		h.assigned = false
	case "connect":
		h.connected = h.ask(h.Connect(ctx, h.onboarding(systemIdentity()))) || h.connected
	case "reconnect":
		if h.ask(h.Reconnect(ctx, h.onboarding(systemIdentity()))) {
			h.exposed = false
		}
	case "disconnect":
		if h.ask(Standing{}, h.Disconnect(ctx, s.Arg < 50, nil)) {
			h.connected, h.exposed = false, false
		}
	case "adopt":
		h.ask(Standing{}, h.Adopt(ctx))
	case "expose":
		h.exposed = h.connected
		must(h.t, h.Expose("readable by uid 1001"))
	}
}

// look checks what must hold at any instant.
func (h *history) look() error {
	if h.faulty != nil {
		return h.faulty
	}
	now := h.clock.Now()
	st, ok := h.Standing(systemID)
	if ok != h.connected {
		return fmt.Errorf("identity here: %t, the operator was told: %t", ok, h.connected)
	}
	for _, st := range h.List() {
		switch {
		case st.State == lifecycle.Expired && !now.Trusted:
			return fmt.Errorf("%s expired under an untrusted clock", st.Identity.Name)
		case st.State == lifecycle.Damaged:
			return fmt.Errorf("damaged: %s", st.Reason)
		case st.State != lifecycle.Connected && st.Reason == "":
			return fmt.Errorf("%s without a reason", st.State)
		case st.Exposed != "" && st.Credential != nil:
			return errors.New("an exposed key is offered for use")
		}
	}
	if h.exposed != (ok && st.Exposed != "") {
		return fmt.Errorf("exposed: got %q, want %t", st.Exposed, h.exposed)
	}
	return h.lookAtFile()
}

// lookAtFile checks that what a restart would find is whole.
func (h *history) lookAtFile() error {
	records, err := h.file.Identities()
	if err != nil {
		return err
	}
	for _, rec := range records {
		if rec.Current == nil {
			continue
		}
		stored, err := credentialOf(identityOf(rec), *rec.Current)
		if err != nil {
			return err
		}
		held, _ := h.Holder(rec.ClientID)
		if !same(stored, held.Current()) {
			return errors.New("memory and file hold different credentials")
		}
	}
	return nil
}

// heal takes all faults away and expects the device to be well again, by
// itself or by the command that it names.
func (h *history) heal() error {
	h.ca.set(func(a *authority) { a.fail, a.lose = nil, nil })
	h.board.set(func(b *board) { b.synced, b.skew = true, 0 })
	h.reboot(time.Minute)
	h.calm()
	if st, ok := h.Standing(systemID); ok && st.State == lifecycle.Moved {
		must(h.t, h.Adopt(context.Background()))
	}
	h.wait(2*time.Hour + 10*time.Minute) // a Rejected one asks once an hour
	st, ok := h.Standing(systemID)
	if ok != h.connected {
		return fmt.Errorf("identity here: %t, the operator was told: %t", ok, h.connected)
	}
	if !ok {
		return nil
	}
	if st.Fix == fixReconnect && (st.Exposed != "" || st.State == lifecycle.Expired || h.revoked()) {
		if !h.ask(h.Reconnect(context.Background(), h.onboarding(systemIdentity()))) {
			return errors.New("reconnect does not help")
		}
	}
	h.wait(time.Minute)
	if st, _ = h.Standing(systemID); st.State != lifecycle.Connected {
		return fmt.Errorf("not healed: %s: %s", st.State, st.Reason)
	}
	return h.token(systemID)
}

// revoked reports whether the certificate in use is dead at the authority,
// which only a disconnect that lost its answer can have brought about.
func (h *history) revoked() bool {
	holder, ok := h.Holder(systemID)
	return ok && holder.Current() != nil && h.ca.isRevoked(holder.Current())
}
