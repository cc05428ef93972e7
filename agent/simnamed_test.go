package main

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"postern/agent/authority/site"
	"postern/agent/control"
	"postern/agent/lifecycle"
)

// served asks for everything and wants so many tokens.
func (s *simulation) served(want int, when string) {
	s.t.Helper()
	got := 0
	for i, key := range s.keys() {
		if s.ask(key, i%2 == 0) {
			got++
		}
	}
	if got != want {
		s.wrong("%d tokens %s, want %d", got, when, want)
	}
}

func (s *simulation) state(want lifecycle.State) {
	s.t.Helper()
	for _, st := range s.g.device.List() {
		if st.State != want {
			s.wrong("%s is %s (%s), want %s", st.Identity.Name, st.State, st.Reason, want)
		}
	}
	s.check()
}

// said counts the lines of the trace that hold the words.
func (s *simulation) said(words string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.trace {
		if strings.Contains(line, words) {
			n++
		}
	}
	return n
}

func TestOfflineRebootServesTheCachedToken(t *testing.T) {
	simulate(t, func(t *testing.T) {
		s := newSimulation(t, 1)
		s.awake(10 * time.Minute)
		s.served(4, "at first")
		s.awake(5 * time.Minute)
		s.link.set("refused")
		s.cut()
		s.boot(time.Hour, time.Time{}, true)
		s.served(4, "after an offline reboot")
		s.suspend(22*time.Hour + 30*time.Minute)
		s.awake(time.Minute)
		s.served(4, "just before they expire")
		s.suspend(30 * time.Minute)
		s.awake(time.Minute)
		s.served(0, "after they expired")
		s.state(lifecycle.Offline)
	})
}

func TestIdentityLivesToTheLastSecond(t *testing.T) {
	simulate(t, func(t *testing.T) {
		s := newSimulation(t, 1)
		s.awake(5 * time.Minute)
		end := s.g.device.List()[0].NotAfter
		s.link.set("refused")
		s.suspend(end.Sub(s.truth()) - 10*time.Minute)
		s.awake(end.Sub(s.truth()) - 5*time.Second)
		s.link.set("")
		key := simKey{s.g.device.List()[0].Identity.ClientID, "https://last.example"}
		if !s.ask(key, true) {
			s.wrong("no token in the last seconds of the certificate")
		}
		if st, _ := s.g.device.Standing(key.clientID); !st.NotAfter.Equal(end) && st.State != lifecycle.Connected {
			s.wrong("state is %s after a renewal in the last seconds", st.State)
		}
	})
}

func TestExpiredContactsNobodyAndServesWhatStillLives(t *testing.T) {
	simulate(t, func(t *testing.T) {
		s := newSimulation(t, 1)
		s.awake(5 * time.Minute)
		last := s.g.device.List()[1].NotAfter
		s.link.set("refused")
		s.suspend(last.Sub(s.truth()) - 2*time.Hour)
		s.awake(simPatience)
		s.state(lifecycle.Offline)
		s.awake(last.Sub(s.truth()) - time.Second)
		s.state(lifecycle.Offline)
		s.awake(2 * time.Second)
		s.state(lifecycle.Expired)
		s.awake(3 * time.Minute)
		s.link.set("")
		before := s.link.dials.Load()
		s.awake(2 * time.Hour)
		s.state(lifecycle.Expired)
		if got := s.link.dials.Load() - before; got != 0 {
			s.wrong("Expired contacted the authority %d times", got)
		}
		s.reconnect()
		s.state(lifecycle.Connected)
	})
}

func Test1970BootLosesNothing(t *testing.T) {
	simulate(t, func(t *testing.T) { wrongBoot(newSimulation(t, 1), time.Date(1970, 1, 1, 0, 0, 12, 0, time.UTC)) })
}

func Test2099BootLosesNothing(t *testing.T) {
	simulate(t, func(t *testing.T) { wrongBoot(newSimulation(t, 1), time.Date(2099, 6, 1, 12, 0, 0, 0, time.UTC)) })
}

// The clock of a board whose 32 bits are full.
func Test2106BootLosesNothing(t *testing.T) {
	simulate(t, func(t *testing.T) { wrongBoot(newSimulation(t, 1), time.Date(2106, 2, 7, 6, 28, 14, 0, time.UTC)) })
}

func wrongBoot(s *simulation, wall time.Time) {
	s.awake(10 * time.Minute)
	s.served(4, "at first")
	s.awake(5 * time.Minute)
	ends := s.g.device.List()[0].NotAfter
	s.link.set("refused")
	s.stop()
	s.boot(time.Hour, wall, false)
	s.state(lifecycle.ClockUntrusted)
	s.served(0, "of an earlier boot under a clock that nobody believes")
	s.awake(30 * time.Minute)
	s.state(lifecycle.ClockUntrusted)
	s.stop()
	s.start() // what a clock of the wrong century left behind must not matter
	s.state(lifecycle.ClockUntrusted)
	if got := s.g.device.List()[0].NotAfter; !got.Equal(ends) {
		s.wrong("the certificate ends %s, not %s", got, ends)
	}
	s.ntp()
	s.awake(time.Minute)
	s.state(lifecycle.Offline)
	s.served(4, "when the time is known")
	s.repair()
}

func TestLateNTP(t *testing.T) {
	simulate(t, func(t *testing.T) {
		s := newSimulation(t, 1)
		s.awake(5 * time.Minute)
		ends := s.g.device.List()[0].NotAfter
		s.link.set("silent")
		s.stop()
		s.boot(60*lifecycle.Day, time.Date(1980, 1, 6, 0, 0, 0, 0, time.UTC), false)
		s.awake(10 * time.Minute)
		s.state(lifecycle.ClockUntrusted)
		if got := s.g.device.List()[0].NotAfter; !got.Equal(ends) {
			s.wrong("renewed under an untrusted clock")
		}
		s.link.set("")
		s.ntp()
		s.awake(3 * time.Minute)
		s.state(lifecycle.Connected)
		if got := s.said("agent: clock trusted"); got != 2 {
			s.wrong("%d transitions to a trusted clock, want one for each of two identities", got)
		}
		if got := s.said("agent: renewed"); got != 2 {
			s.wrong("%d renewals, want one for each of two identities", got)
		}
	})
}

func TestSuspendOverRenewal(t *testing.T) {
	simulate(t, func(t *testing.T) {
		s := newSimulation(t, 1)
		s.awake(5 * time.Minute)
		s.suspend(50 * lifecycle.Day)
		s.awake(100 * time.Second) // a tick, and the spread after a long silence
		s.state(lifecycle.Connected)
		if got := s.said("agent: renewed"); got != 2 {
			s.wrong("%d renewals within a tick of the resume, want 2", got)
		}
	})
}

func TestClockStepExpiresNothing(t *testing.T) {
	for _, by := range []time.Duration{-lifecycle.Day, lifecycle.Day, 100 * lifecycle.Day} {
		t.Run(fmt.Sprint(by), func(t *testing.T) {
			simulate(t, func(t *testing.T) {
				s := newSimulation(t, 1)
				s.awake(5 * time.Minute)
				s.served(4, "before the step")
				s.link.set("refused")
				s.sim.SetSynchronised(false)
				s.sim.Step(by)
				s.state(lifecycle.ClockUntrusted)
				s.served(4, "after the step: the boot clock proves them")
				s.suspend(23*time.Hour + 30*time.Minute)
				s.awake(time.Minute)
				s.served(4, "before they expire")
				s.suspend(time.Hour)
				s.awake(time.Minute)
				s.served(0, "after they expired")
				s.repair()
			})
		})
	}
}

func TestOutageOf46And89And91And400Days(t *testing.T) {
	for _, days := range []int{46, 89, 91, 400} {
		t.Run(fmt.Sprintf("%dDays", days), func(t *testing.T) {
			simulate(t, func(t *testing.T) {
				s := newSimulation(t, 1)
				s.awake(5 * time.Minute)
				s.link.set("refused")
				s.cut()
				s.boot(time.Duration(days)*lifecycle.Day, time.Time{}, true)
				s.afterOutage(days < 90)
			})
		})
	}
}

func (s *simulation) afterOutage(alive bool) {
	if alive {
		s.state(lifecycle.Offline)
		s.link.set("")
		s.awake(simPatience)
		s.state(lifecycle.Connected)
		if left := s.g.device.List()[0].NotAfter.Sub(s.truth()); left < 89*lifecycle.Day {
			s.wrong("%v left after the outage: not renewed", left)
		}
		return
	}
	s.state(lifecycle.Expired)
	if st, _ := s.g.device.System(); !strings.Contains(st.Fix, "reconnect") {
		s.wrong("the cure is %q, want reconnect", st.Fix)
	}
	s.link.set("")
	before := s.link.dials.Load()
	s.awake(2 * time.Hour)
	if got := s.link.dials.Load() - before; got != 0 {
		s.wrong("Expired contacted the authority %d times", got)
	}
	s.reconnect()
	s.state(lifecycle.Connected)
}

// The budget of flash is 5 MB a day; nothing may follow the tick.
func TestQuietHoursWriteLittle(t *testing.T) {
	simulate(t, func(t *testing.T) {
		s := newSimulation(t, 1)
		s.served(4, "at first")
		s.awake(10 * time.Minute)
		written := func() int64 { return s.g.cache.Health().Written + s.g.file.Health().Written }
		before := written()
		s.awake(6 * time.Hour)
		if got := written() - before; got > 5e6/4 {
			s.wrong("%d bytes written in six quiet hours", got)
		} else {
			t.Logf("%d bytes written in six quiet hours", got)
		}
	})
}

// A board without a time server is connected by a verb before its agent runs:
// the agent believes the clock that the authority confirmed to the verb.
func TestVerbWithoutAnAgentLeavesWhatItLearntOfTheClock(t *testing.T) {
	simulate(t, func(t *testing.T) {
		s := newSimulation(t, 1)
		s.awake(5 * time.Minute)
		s.stop()
		s.sim.Reboot(t)
		s.sim.SetSynchronised(false)
		claim, err := s.site.CreateClaim(t.Context(), site.ClaimRequest{Machine: simName, Reonboard: true})
		s.must(err)
		g, err := build(t.Context(), plan{cfg: s.cfg, host: s.sim, log: slog.New(simLog{s}), mode: "run", dial: s.link.dial, poll: true})
		s.must(err)
		s.must(g.Connect(t.Context(), control.ConnectRequest{Claim: claim.Token.Reveal(), Again: true}, func(string) {}))
		s.must(g.end())
		s.link.set("refused")
		s.start()
		s.state(lifecycle.Connected)
	})
}
