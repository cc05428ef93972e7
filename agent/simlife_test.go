package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"postern/agent/authority/site"
	"postern/agent/control"
	"postern/agent/lifecycle"
)

var (
	simSeeds = flag.Int("sim.seeds", 0, "how many simulated lives; 0: 200 where CI is set, else 20")
	simSeed  = flag.Uint64("sim.seed", 1, "the first seed")
	simDays  = flag.Int("sim.days", 400, "days of a simulated life")
)

// Whole lives of a device: real databases, real HTTP and TLS in memory, a real
// authority, every loop of the agent, 400 days. Most of the days pass asleep,
// off or cut off; what happens when, the seed decides. The jitter of the agent
// itself is not seeded: a replay repeats the events, not each timer.
func TestSimulatedLives(t *testing.T) {
	count := *simSeeds
	switch {
	case count > 0:
	case os.Getenv("CI") != "":
		count = 200
	default:
		count = 20
	}
	var all simFigures
	for seed := *simSeed; seed < *simSeed+uint64(count); seed++ { //nolint:gosec // a count
		ok := t.Run(fmt.Sprintf("seed-%d", seed), func(t *testing.T) {
			simulate(t, func(t *testing.T) {
				s := newSimulation(t, seed)
				s.live400(time.Duration(*simDays) * lifecycle.Day)
				all.add(s.figures)
			})
		})
		if !ok {
			break // one failing life is enough to read
		}
	}
	all.print(t)
}

// live400 lets the device live for so long.
func (s *simulation) live400(life time.Duration) {
	begin := s.truth()
	end := begin.Add(life)
	s.good = time.Now()
	for s.truth().Before(end) && !s.t.Failed() {
		s.event()
		s.work()
		if s.rng.IntN(8) == 0 {
			s.repair()
		}
	}
	s.repair()
	s.settle()
	s.stop()
	s.figures.dials, s.figures.days = s.link.dials.Load(), s.truth().Sub(begin).Hours()/24
	f := s.figures
	if most := 100 + int64(120*f.awake.Hours()); f.dials > most {
		s.wrong("%d connections to the authority in %v awake, at most %d are in order", f.dials, f.awake, most)
	}
	if wrote := f.cacheBytes + f.identityBytes; float64(wrote) > 5e6*f.days {
		s.wrong("%d bytes written in %.0f days, the budget is 5 MB a day", wrote, f.days)
	}
}

// event is one thing that happens to a device.
func (s *simulation) event() {
	switch n := s.rng.IntN(100); {
	case n < 30:
		s.good = time.Time{}
		s.suspend(s.between(time.Minute, 40*lifecycle.Day))
		s.afterGap()
	case n < 55:
		s.reboot()
	case n < 70:
		s.outage()
	case n < 80:
		s.say("agent restarts")
		s.good = time.Time{}
		s.stop()
		s.start()
		s.afterGap()
	case n < 90:
		s.step()
	case n < 94:
		s.damageCache()
	case n < 97:
		s.changeAssignments()
	default:
		s.say("some hours of nothing")
		s.awake(s.between(10*time.Minute, 30*time.Minute))
	}
}

// between is skewed to the short.
func (s *simulation) between(least, most time.Duration) time.Duration {
	r := s.rng.Float64()
	return least + time.Duration(float64(most-least)*r*r)
}

// afterGap begins a new stretch of good conditions, if they are.
func (s *simulation) afterGap() {
	s.good = time.Time{}
	clock := s.sim.Clock()
	if s.link.up() && clock.Synchronised {
		s.good = time.Now()
	}
}

func (s *simulation) reboot() {
	if s.rng.IntN(2) == 0 {
		s.say("power cut")
		s.forgetUnsaved()
		s.cut()
	} else {
		s.say("shut down")
		s.stop()
	}
	off := s.between(10*time.Second, 45*lifecycle.Day)
	var wall time.Time
	synchronised := false
	switch n := s.rng.IntN(10); {
	case n < 4:
		synchronised = true
	case n < 6: // the battery is right, and nobody says so
	case n < 9:
		wall = time.Date(1970, 1, 1, 0, 0, 12, 0, time.UTC)
	default:
		wall = time.Date(2099, 6, 1, 12, 0, 0, 0, time.UTC)
	}
	s.boot(off, wall, synchronised)
	s.afterGap()
}

// forgetUnsaved: what was handed out a moment ago may not be on the disk yet.
func (s *simulation) forgetUnsaved() {
	for key, tok := range s.tokens {
		if s.truth().Sub(tok.got) < 3*time.Minute {
			delete(s.tokens, key)
		}
	}
}

// outage takes the authority away for minutes to 60 days.
func (s *simulation) outage() {
	mode := "refused"
	if s.rng.IntN(2) == 0 {
		mode = "silent"
	}
	s.good = time.Time{}
	s.link.set(mode)
	away := s.between(2*time.Minute, 60*lifecycle.Day)
	s.say("authority away (%s) for %v", mode, away)
	end := s.truth().Add(away)
	for left := away; left > 0 && !s.t.Failed(); left = end.Sub(s.truth()) {
		if left > time.Hour {
			s.suspend(min(left-6*time.Minute, s.between(time.Hour, 40*lifecycle.Day)))
		}
		s.work()
	}
	s.link.set("")
	s.say("authority back")
	s.afterGap()
}

// step sets the clock, as a person or a bad time source does.
func (s *simulation) step() {
	by := s.between(time.Second, 3*lifecycle.Day)
	if s.rng.IntN(2) == 0 {
		by = -by
	}
	s.say("clock steps by %v", by)
	s.good = time.Time{}
	s.sim.Step(by)
	s.sim.SetSynchronised(false)
}

// damageCache writes over the cache while the agent is down. The tokens in it
// may be lost; nothing else may.
func (s *simulation) damageCache() {
	s.say("cache damaged")
	s.good = time.Time{}
	s.stop()
	path := filepath.Join(s.sim.Dirs().State, "cache.db")
	content, err := os.ReadFile(path)
	s.must(err)
	for range 400 {
		content[s.rng.IntN(len(content))] ^= byte(1 + s.rng.IntN(255))
	}
	s.must(os.WriteFile(path, content, 0o600))
	clear(s.tokens)
	s.start()
	s.afterGap()
}

// changeAssignments takes the user-assigned identity away and gives it again.
func (s *simulation) changeAssignments() {
	if !s.repair() {
		return
	}
	st, ok := s.user()
	if !ok {
		return
	}
	s.say("identity unassigned, and assigned again")
	ctx := context.Background()
	s.must(s.site.Unassign(ctx, "fleet", simName))
	s.awake(10 * time.Minute)
	if a, err := s.request(simKey{st.Identity.ClientID, "https://vault.azure.net"}, false); err != nil || a.status == 200 {
		s.wrong("an unassigned identity was given a token: %d %v", a.status, err)
	}
	delete(s.best, st.Identity.ClientID)
	delete(s.used, st.Identity.ClientID)
	for key := range s.tokens {
		if key.clientID == st.Identity.ClientID {
			delete(s.tokens, key)
		}
	}
	s.must(s.site.Assign(ctx, "fleet", simName))
	s.awake(10 * time.Minute)
	if _, ok := s.user(); !ok {
		s.wrong("the identity that was assigned again is not here")
	}
}

// work is some minutes of a device's day: programs ask at random instants.
func (s *simulation) work() {
	for range 1 + s.rng.IntN(2) {
		s.awake(time.Duration(s.rng.Int64N(int64(4 * time.Minute))))
		keys := s.keys()
		if len(keys) > 0 {
			s.ask(keys[s.rng.IntN(len(keys))], s.rng.IntN(2) == 0)
		}
		s.check()
		if s.t.Failed() {
			return
		}
	}
	if s.rng.IntN(4) == 0 && !s.sim.Clock().Synchronised {
		s.ntp()
		s.afterGap()
	}
}

// repair puts clock and link right and waits until the device has caught up;
// a person reconnects what is Expired. It reports whether all is well.
func (s *simulation) repair() bool {
	if s.t.Failed() {
		return false
	}
	s.link.set("")
	s.ntp()
	s.good = time.Now()
	s.awake(simPatience + time.Minute)
	s.check()
	for _, st := range s.g.device.List() {
		if st.State == lifecycle.Expired {
			s.reconnect()
			break
		}
	}
	return s.settle()
}

// settle: with everything right, every identity has a working credential.
func (s *simulation) settle() bool {
	s.checkKnown()
	s.checkAudit()
	for _, st := range s.g.device.List() {
		if st.State != lifecycle.Connected {
			s.wrong("%s is %s (%s) though clock and authority are right", st.Identity.Name, st.State, st.Reason)
		}
		key := simKey{st.Identity.ClientID, "https://fresh.example/" + st.NotAfter.Format("20060102")}
		if !s.ask(key, false) {
			s.wrong("%s has no working credential", st.Identity.Name)
		}
	}
	return !s.t.Failed()
}

// reconnect is what an operator does for Expired identities.
func (s *simulation) reconnect() {
	ctx := context.Background()
	s.say("operator reconnects")
	s.reconnecting.Store(true)
	defer s.reconnecting.Store(false)
	s.figures.expired++
	if st, _ := s.g.device.System(); st.State == lifecycle.Expired {
		claim, err := s.site.CreateClaim(ctx, site.ClaimRequest{Machine: simName, Reonboard: true})
		s.must(err)
		s.must(s.g.Connect(ctx, control.ConnectRequest{Claim: claim.Token.Reveal(), Again: true}, func(string) {}))
	}
	if st, ok := s.user(); ok && st.State == lifecycle.Expired {
		s.must(s.site.RenewAssignment(ctx, "fleet", simName))
		s.must(s.g.device.Sync(ctx))
	}
	clear(s.best)
	clear(s.used)
	s.awake(time.Minute)
}

// keys are what the programs on the device ask for.
func (s *simulation) keys() []simKey {
	var all []simKey
	for _, st := range s.g.device.List() {
		for _, resource := range []string{"https://vault.azure.net", "https://storage.azure.com/"} {
			all = append(all, simKey{st.Identity.ClientID, resource})
		}
	}
	return all
}
