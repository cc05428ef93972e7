package lifecycle_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"postern/agent/lifecycle"
)

// A history is what befalls a device, two bytes an event. The world plays it
// with real clocks, contact and facts, and after each event holds the room to
// what it promises. Events are honest: a kernel that says synchronised is
// right, and so is the authority's Date, except in events that say otherwise.
type world struct {
	t       testing.TB
	log     []string
	d       *device
	clock   *lifecycle.Clock
	contact *lifecycle.Contact
	facts   lifecycle.Facts
	floor   time.Time // as last persisted
	heard   time.Time // contact, as last persisted
	anchor  lifecycle.Mark
	tokens  []heldToken
	lied    bool // what the clock knows may rest on a false Date
	reached map[lifecycle.State]int

	anchorLied bool // the persisted anchor may rest on a false Date
}

// heldToken is a stored token with the truth about it.
type heldToken struct {
	issued, expires, trueEnd time.Time
	boot                     time.Duration
	bootID                   string
	trusted, lied            bool
}

const (
	tokenLife = 24 * time.Hour
	// honestError is how far a trusted clock may be off when nobody lies: the
	// tolerance of agreement, and again of keeping step.
	honestError = 2*lifecycle.ClockTolerance + 2*time.Second
)

// rebooted is what the device does, and a new process after it.
func (w *world) rebooted() {
	w.lied, w.anchorLied = false, false
	w.restart()
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, d: newDevice(born), reached: map[lifecycle.State]int{}}
	w.restart()
	w.enrol()
	return w
}

// restart is a new process: only what was persisted is left.
func (w *world) restart() {
	w.clock = lifecycle.NewClock(lifecycle.ClockOptions{Source: w.d.read, Build: built, Floor: w.floor, Anchor: w.anchor})
	w.contact = &lifecycle.Contact{}
	w.contact.Restore(w.heard, lifecycle.Failure{})
	if !w.facts.NotBefore.IsZero() {
		w.clock.Raise(w.facts.NotBefore)
	}
}

func (w *world) enrol() {
	w.facts = lifecycle.Facts{Enrolled: true, NotBefore: w.d.date().Add(-time.Minute), NotAfter: w.d.date().Add(90 * day)}
	w.clock.Raise(w.facts.NotBefore)
}

// look derives as the agent's loop does.
func (w *world) look() (lifecycle.Facts, lifecycle.Instant, lifecycle.State) {
	now := w.clock.Now()
	f := w.facts
	f.ClockTrusted, f.LastContact = now.Trusted, w.contact.LastContact(now)
	state, _ := lifecycle.Derive(f, now.Wall)
	return f, now, state
}

// heardAuthority is any call that is answered.
func (w *world) heardAuthority() {
	w.clock.Observe(w.d.date())
	// An earlier lie of less than a day is not found out: one odd Date must not
	// shake a clock that keeps step. A greater one is, and leaves nothing.
	var wrong time.Duration
	if a := w.clock.Anchor(); !a.Wall.IsZero() {
		wrong = a.Wall.Add(w.d.read().Boot - a.Boot).Sub(w.d.truth).Abs()
	}
	w.lied = w.lied && wrong > honestError && wrong < lifecycle.ClockJump
	w.contact.Seen(w.clock.Now())
}

func (w *world) renew() {
	if _, now, state := w.look(); state.MayIssue() {
		if !now.Wall.Before(lifecycle.RenewAt(w.facts.NotBefore, w.facts.NotAfter, "gw")) {
			w.heardAuthority()
			w.enrol()
		}
	}
}

func (w *world) token() {
	if _, _, state := w.look(); !state.MayIssue() {
		return
	}
	w.heardAuthority()
	now := w.clock.Now()
	w.tokens = append(w.tokens, heldToken{
		issued: now.Wall, expires: now.Wall.Add(tokenLife), trueEnd: w.d.truth.Add(tokenLife),
		boot: now.Boot, bootID: now.BootID, trusted: now.Trusted, lied: w.lied,
	})
	if len(w.tokens) > 4 {
		w.tokens = w.tokens[1:]
	}
}

// persist is what the store does at most once an hour and at SIGTERM.
func (w *world) persist() {
	w.floor, w.heard = w.clock.Floor(), w.contact.LastContact(w.clock.Now())
	w.anchor, w.anchorLied = w.clock.Anchor(), w.lied
}

var events = []struct {
	name string
	do   func(w *world, arg int)
}{
	// What happens most stands there more than once.
	{"authority answers", func(w *world, _ int) { w.heardAuthority() }},
	{"synchronised", func(w *world, _ int) { w.d.synchronise() }},
	{"reconnected", func(w *world, _ int) { w.heardAuthority(); w.enrol() }},
	{"renewal tried", func(w *world, _ int) { w.renew() }},
	{"hours pass", func(w *world, arg int) { w.d.pass(time.Duration(arg) * hour / 8) }},
	{"seconds pass", func(w *world, arg int) { w.d.pass(time.Duration(arg) * 7 * time.Second) }},
	{"hours pass", func(w *world, arg int) { w.d.pass(time.Duration(arg) * hour) }},
	{"days pass", func(w *world, arg int) { w.d.pass(time.Duration(arg) * day / 4) }},
	{"wall clock stepped by minutes", func(w *world, arg int) { w.d.step(time.Duration(arg-128) * 10 * time.Second) }},
	{"wall clock stepped by days", func(w *world, arg int) { w.d.step(time.Duration(arg-128) * 9 * hour) }},
	{"synchronised", func(w *world, _ int) { w.d.synchronise() }},
	{"kernel forgets", func(w *world, _ int) { w.d.synced = false }},
	{"rebooted with a good clock", func(w *world, _ int) { w.d.reboot(); w.rebooted() }},
	{"rebooted in 1970", func(w *world, arg int) {
		w.d.rebootAt(time.Unix(int64(arg), 0))
		w.rebooted()
	}},
	{"rebooted in 2106", func(w *world, _ int) {
		w.d.rebootAt(time.Date(2106, 2, 7, 0, 0, 0, 0, time.UTC))
		w.rebooted()
	}},
	{"agent restarted", func(w *world, arg int) {
		if arg%2 == 0 {
			w.persist()
		}
		w.lied = w.anchorLied // a new process knows only the anchor
		w.restart()
	}},
	{"authority answers", func(w *world, _ int) { w.heardAuthority() }},
	{"authority silent", func(w *world, _ int) { w.contact.Failed(w.clock.Now(), errDown) }},
	{"renewal tried", func(w *world, _ int) { w.renew() }},
	{"token asked for", func(w *world, _ int) { w.token() }},
	{"persisted", func(w *world, _ int) { w.persist() }},
	{"refused twice", func(w *world, arg int) {
		if arg < 32 {
			w.facts.RejectedAt = w.clock.Now().Wall
		}
	}},
	{"reconnected", func(w *world, _ int) { w.heardAuthority(); w.enrol() }},
	{"floor spoilt", func(w *world, arg int) {
		w.floor = w.d.truth.AddDate(arg, 0, 0)
		w.lied = w.anchorLied
		w.restart()
	}},
	{"false Date heard", func(w *world, arg int) {
		date := w.d.date().AddDate(0, arg-128, 0)
		if arg%2 == 0 {
			date = w.d.read().Wall // an authority as wrong as we are
		}
		w.clock.Observe(date)
		w.lied = true
	}},
}

// play runs a history and checks the promises after every event.
func (w *world) play(history []byte) {
	for len(history) >= 2 && w.d.truth.Year() < 2200 {
		e, arg := events[int(history[0])%len(events)], int(history[1])
		history = history[2:]
		w.log = append(w.log, fmt.Sprintf("%s (%d)", e.name, arg))
		e.do(w, arg)
		w.promises()
		if w.t.Failed() {
			w.t.Fatalf("after:\n%v", w.log)
		}
	}
}

func (w *world) promises() {
	w.t.Helper()
	f, now, state := w.look()
	w.reached[state]++
	checkUntil(w.t, "", f, now.Wall)
	if _, err := state.MarshalText(); err != nil {
		w.t.Errorf("%v", err)
	}
	if now.Reason == "" {
		w.t.Error("a verdict without a reason")
	}
	if !now.Trusted && state == lifecycle.Expired {
		w.t.Error("Expired under an untrusted clock")
	}
	wrong := now.Wall.Sub(w.d.truth).Abs()
	if now.Trusted && !w.lied && wrong > honestError {
		w.t.Errorf("a clock that is off by %s is trusted: %s", wrong, now.Reason)
	}
	if early := f.NotAfter.Sub(w.d.truth); state == lifecycle.Expired && !w.lied && early > honestError {
		w.t.Errorf("Expired %s before its time", early)
	}
	if w.clock.VerifyTime().Before(built) || w.clock.Floor().Before(built) {
		w.t.Errorf("verifies at %s, floor %s, before the build", w.clock.VerifyTime(), w.clock.Floor())
	}
	w.tokensLive(now)
}

// tokensLive checks that no token is handed out after its real end, nor taken
// away before while nothing was restarted.
func (w *world) tokensLive(now lifecycle.Instant) {
	w.t.Helper()
	for _, k := range w.tokens {
		left, proven := lifecycle.Remaining(k.issued, k.expires, k.boot, k.bootID, now, k.trusted)
		truly := k.trueEnd.Sub(w.d.truth)
		honest := !w.lied && !k.lied
		if proven && honest && left > max(truly, 0)+2*honestError {
			w.t.Errorf("token has %s left, in truth %s", left, truly)
		}
		if k.bootID == now.BootID && left > max(truly, 0) {
			w.t.Errorf("token has %s left in the boot of its issue, in truth %s", left, truly)
		}
		if k.bootID == now.BootID && honest && left < truly-2*honestError {
			w.t.Errorf("token has %s left, in truth %s: ends early", left, truly)
		}
	}
}

// heals checks that a device with a right clock and an authority that answers
// is well again, whatever befell it.
func (w *world) heals() {
	w.t.Helper()
	w.d.synchronise()
	w.heardAuthority()
	w.facts.RejectedAt = time.Time{}
	f, now, state := w.look()
	if !now.Trusted {
		w.t.Errorf("a synchronised clock that the authority confirms is not trusted: %s", now.Reason)
	}
	if want := expected(f, now.Wall); state != want || w.d.truth.Before(f.NotAfter) && state != lifecycle.Connected {
		w.t.Errorf("%s with %s left", state, f.NotAfter.Sub(w.d.truth))
	}
	if ahead := w.clock.Floor().Sub(w.d.truth); ahead > lifecycle.ClockTolerance {
		w.t.Errorf("the floor lies %s in the future", ahead)
	}
	if w.t.Failed() {
		w.t.Fatalf("after:\n%v", w.log)
	}
}

func TestNoHistoryBreaksAPromise(t *testing.T) {
	const histories, length = 3000, 120
	const seed = 20261120
	reached := map[lifecycle.State]int{}
	for i := range uint64(histories) {
		r := rand.New(rand.NewPCG(seed, i))
		history := make([]byte, 2*(1+r.IntN(length)))
		for j := range history {
			history[j] = byte(r.Uint32())
		}
		t.Run(fmt.Sprintf("seed %d,%d", seed, i), func(t *testing.T) {
			w := newWorld(t)
			w.play(history)
			w.heals()
			for s, n := range w.reached {
				reached[s] += n
			}
		})
	}
	t.Logf("%d histories: %v", histories, reached)
	for _, s := range []lifecycle.State{lifecycle.Rejected, lifecycle.ClockUntrusted, lifecycle.Expired, lifecycle.Offline, lifecycle.Connected} {
		if reached[s] < histories/10 {
			t.Errorf("%s was reached %d times in %d histories: they prove little", s, reached[s], histories)
		}
	}
}

func FuzzHistory(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{10, 0, 19, 0, 7, 255, 11, 0, 17, 0, 7, 255})         // synchronised, token, months offline
	f.Add([]byte{16, 0, 19, 0, 13, 9, 5, 9, 19, 0, 10, 0})            // token, reboot in 1970, time comes
	f.Add([]byte{23, 73, 18, 0, 16, 0, 9, 255, 16, 0})                // spoilt floor, healed, stepped
	f.Add([]byte{16, 0, 7, 200, 18, 0, 7, 255, 7, 255, 18, 0, 22, 0}) // renewal, expiry, reconnect
	f.Add([]byte{24, 255, 10, 0, 24, 0, 19, 0, 16, 0})                // an authority that lies
	f.Fuzz(func(t *testing.T, history []byte) {
		w := newWorld(t)
		w.play(history)
		w.heals()
	})
}
