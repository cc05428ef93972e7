package token

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/platform"
	"postern/store"
)

// model is what is true of the tokens that the authority issued, whatever the
// broker and the device's clocks think.
type model struct {
	*world
	dir    string
	wrong  string // the first thing that was
	limits Limits
	stop   func()
	boots  int
	tokens map[string]*issuedToken // by value
	last   map[key]*issuedToken    // served last, by this process
}

type issuedToken struct {
	key     key
	expires time.Time // in true time, which is the bubble's
	served  time.Time
	revoked bool // its identity was forgotten after it was issued
}

var (
	modelIDs       = []string{systemID, userID}
	modelPeers     = []platform.Peer{"uid:1", "uid:2", platform.Unknown}
	modelResources = []string{"api://0", "api://1", "api://2", "api://3", "api://4", "api://5"}
)

// step is one thing that happens; its numbers choose the details.
type step struct {
	do         string
	a, b, c, d int
}

func steps() *rapid.Generator[[]step] {
	one := rapid.Custom(func(rt *rapid.T) step {
		n := rapid.IntRange(0, 719) // divisible by the length of every list of choices
		return step{
			do: rapid.SampledFrom([]string{
				"ask", "ask", "ask", "ask", "ask", "wait", "wait", "clock", "network", "network", "state", "forget", "restart",
			}).Draw(rt, "do"),
			a: n.Draw(rt, "a"), b: n.Draw(rt, "b"), c: n.Draw(rt, "c"), d: n.Draw(rt, "d"),
		}
	})
	return rapid.SliceOfN(one, 1, 60)
}

func pick[T any](from []T, n int) T { return from[n%len(from)] }

func (m *model) take(s step) {
	switch s.do {
	case "ask":
		m.ask(s)
	case "wait":
		after(pick([]time.Duration{
			time.Second, 10 * time.Second, time.Minute, 5 * time.Minute, time.Hour, 12 * time.Hour, 3 * 24 * time.Hour,
		}, s.a))
	case "clock":
		m.stepClock(s)
	case "network":
		m.network(s)
	case "state":
		m.state(s)
	case "forget":
		m.forget(pick(modelIDs, s.a))
	case "restart":
		m.restart(s)
	}
	m.check()
}

func (m *model) failf(format string, args ...any) {
	if m.wrong == "" {
		m.wrong = fmt.Sprintf(format, args...)
	}
}

func newModel(t *testing.T) *model {
	dir := quickDir(t)
	m := &model{
		dir: dir, limits: Limits{Entries: 5, PerPeer: 3},
		tokens: map[string]*issuedToken{}, last: map[key]*issuedToken{},
	}
	m.world = newWorld(t, func(o *Options) { o.Cache, o.Limits = openCache(t, dir), m.limits })
	m.ids.add(credential.UserAssigned, userID)
	m.ids.judged = true
	m.issuer.set(func(f *fakeIssuer) { f.answer = m.issue; f.life = time.Hour })
	m.stop = m.run()
	return m
}

// issue is the authority: it knows the true time.
func (m *model) issue(n int, with *credential.Credential, resource string) (Issued, error) {
	m.issuer.mu.Lock()
	life, err := m.issuer.life, m.issuer.err
	m.issuer.mu.Unlock()
	if err != nil {
		return Issued{}, err
	}
	value := fmt.Sprintf("%s|%s|%d", with.Identity.ClientID, resource, n)
	m.issuer.mu.Lock()
	defer m.issuer.mu.Unlock()
	m.tokens[value] = &issuedToken{key: key{with.Identity.ClientID, resource}, expires: time.Now().Add(life)}
	return Issued{Value: store.NewSecret(value), ExpiresIn: life}, nil
}

func (m *model) ask(s step) {
	r := by(request(pick(modelIDs, s.a), pick(modelResources, s.b)), pick(modelPeers, s.c))
	r.Refresh = s.d%10 == 0
	k := key{r.ClientID, r.Resource}
	before, _ := m.ids.Standing(r.ClientID)
	asked, last := time.Now(), m.last[k]
	got, err := m.Token(m.t.Context(), r)
	if took := time.Since(asked); took > callerWait {
		m.failf("the answer took %v", took)
	}
	if err != nil {
		m.refused(before.State, last, err)
		return
	}
	m.served(k, before.State, got)
}

// refused checks that nobody is refused while a token lives that was served
// within the day.
func (m *model) refused(state lifecycle.State, last *issuedToken, err error) {
	if !state.ServesCached(true) || last == nil || last.revoked {
		return
	}
	if time.Until(last.expires) > minLife+time.Second && time.Since(last.served) < unusedLife {
		m.failf("refused in state %v although a token lives for %v more: %v", state, time.Until(last.expires), err)
	}
}

func (m *model) served(k key, state lifecycle.State, got Token) {
	m.issuer.mu.Lock()
	is := m.tokens[got.Value.Reveal()]
	m.issuer.mu.Unlock()
	now := m.clock.Now()
	switch {
	case is == nil:
		m.failf("a token that nobody issued: %q", got.Value.Reveal())
	case is.key != k || got.Identity.ClientID != k.clientID:
		m.failf("asked for %v, got the token of %v", k, is.key)
	case is.revoked:
		m.failf("a token of before Forget: %q", got.Value.Reveal())
	case !state.ServesCached(true), !got.FromCache && !state.MayIssue():
		m.failf("served in state %v, from cache %v", state, got.FromCache)
	case got.Remaining <= 0 || got.Remaining > time.Until(is.expires):
		m.failf("said to live %v, lives %v", got.Remaining, time.Until(is.expires))
	case !got.ExpiresOn.Equal(now.Wall.Add(got.Remaining)):
		m.failf("expires on %v, want %v and %v", got.ExpiresOn, now.Wall, got.Remaining)
	}
	if is == nil {
		return
	}
	is.served = time.Now()
	if got.Remaining >= leastKept || m.last[k] == is {
		m.last[k] = is
	}
}

// stepClock moves the wall clock when no time source holds it; a synchronised
// kernel is right again at once.
func (m *model) stepClock(s step) {
	by := pick([]time.Duration{
		-30 * 365 * 24 * time.Hour, -25 * time.Hour, -time.Hour, -10 * time.Minute,
		10 * time.Minute, time.Hour, 25 * time.Hour, 99 * 365 * 24 * time.Hour,
	}, s.a)
	m.device.set(func(c *clocks) {
		if c.synced = s.b%2 == 0; c.synced {
			by = -c.wall
		}
		c.wall += by
	})
}

func (m *model) network(s step) {
	m.issuer.set(func(f *fakeIssuer) {
		f.err = pick([]error{
			nil, nil, nil, unreachable(), &lifecycle.Error{Class: lifecycle.ClassDenied, Answered: true},
			&lifecycle.Error{Class: lifecycle.ClassTransient, Answered: true, Throttled: true, RetryAfter: 3 * time.Minute},
			&lifecycle.Error{Class: lifecycle.ClassTransient, Answered: true, Err: ErrNotReplicated}, errors.New("out of contract"),
		}, s.a)
		f.delay = pick([]time.Duration{0, 0, time.Second, 3 * time.Second, time.Hour}, s.b)
		f.life = pick([]time.Duration{30 * time.Second, 90 * time.Second, 20 * time.Minute, time.Hour, 24 * time.Hour}, s.c)
	})
}

func (m *model) state(s step) {
	m.ids.change(pick(modelIDs, s.a), func(st *credential.Standing) {
		st.State = pick([]lifecycle.State{
			lifecycle.Connected, lifecycle.Connected, lifecycle.Connected, lifecycle.Offline, lifecycle.Offline,
			lifecycle.Expired, lifecycle.Rejected, lifecycle.Moved, lifecycle.Unenrolled, lifecycle.Damaged,
		}, s.b)
	})
}

func (m *model) forget(id string) {
	m.Forget(id)
	m.issuer.mu.Lock()
	defer m.issuer.mu.Unlock()
	for _, is := range m.tokens {
		if is.key.clientID == id {
			is.revoked = true
		}
	}
}

// restart ends the process in order; reboot takes the boot-time clock along.
func (m *model) restart(s step) {
	m.stop()
	after(time.Minute) // calls under way end with the old process
	if s.a%2 == 0 {
		m.boots++
		m.device.reboot(fmt.Sprintf("boot-%d", m.boots+1), 0)
	}
	m.clock = lifecycle.NewClock(lifecycle.ClockOptions{Source: m.device.read, Floor: m.clock.Floor()})
	m.ids.clock = m.clock
	if err := m.cache.Close(); err != nil {
		m.failf("%v", err)
	}
	cache, contact := openCache(m.t, m.dir), m.contact
	m.world.restart(func(o *Options) { o.Cache, o.Contact, o.Limits = cache, contact, m.limits })
	m.stop = m.run()
	clear(m.last) // what was saved in time is served; the rest may be fetched anew
}

func (m *model) check() {
	synctest.Wait()
	st, own := m.Stats(), map[platform.Peer]int{}
	for _, c := range m.List() {
		own[c.Owner]++
	}
	if st.Entries > m.limits.Entries || st.Refusals > maxRefusals || len(m.cache.Tokens()) > m.limits.Entries+len(modelIDs)*len(modelResources) {
		m.failf("out of bounds: %+v", st)
	}
	for peer, n := range own {
		if n > m.limits.PerPeer {
			m.failf("%s owns %d entries", peer, n)
		}
	}
	if strings.Contains(m.log.String(), "|api://") {
		m.failf("a token is in the log")
	}
}

// Over any history of requests, outages, clock steps, reboots and states:
// never an expired token, never another identity's, never out of bounds, and
// no caller refused while its token lives.
func TestBrokerAgreesWithItsModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		script, wrong := steps().Draw(rt, "script"), ""
		synctest.Test(t, func(t *testing.T) {
			m := newModel(t)
			for i := 0; i < len(script) && m.wrong == ""; i++ {
				m.take(script[i])
			}
			wrong = m.wrong
			m.stop()
			after(2 * callTime) // calls under way end
		})
		if wrong != "" {
			rt.Fatal(wrong)
		}
	})
}
