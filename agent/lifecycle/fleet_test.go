package lifecycle_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"postern/agent/lifecycle"
)

var fleetAgents = flag.Int("fleet.agents", 30_000, "how many agents the fleet simulation has")

// fleet is a simulation of the authority's load: agents that were onboarded
// one after another within a span of time and do what this room tells them.
type fleet struct {
	agents    int
	resources int           // tokens that each agent keeps warm
	tokenLife time.Duration // of each
	chance    *rand.Rand
	renewals  []time.Time // first renewal of each agent
	ends      []time.Time // of the first certificate
}

const (
	oneShift = 8 * time.Hour // all agents of a site, flashed in one go
	allAges  = 45 * day      // agents that came at any time
)

func newFleet(agents, resources int, tokenLife, onboarding time.Duration) *fleet {
	f := &fleet{agents: agents, resources: resources, tokenLife: tokenLife, chance: rand.New(rand.NewPCG(1, 2))}
	for i := range agents {
		nb := born.Add(time.Duration(f.chance.Int64N(int64(onboarding))))
		na := nb.Add(90 * day)
		f.renewals = append(f.renewals, lifecycle.RenewAt(nb, na, seed(i)))
		f.ends = append(f.ends, na)
	}
	return f
}

func seed(agent int) string { return fmt.Sprintf("gw-%07d/system", agent) }

// peak counts events by interval and returns the most that fell into one.
func peak(at []time.Time, interval time.Duration) int {
	counts, most := map[int64]int{}, 0
	for _, t := range at {
		k := t.UnixNano() / int64(interval)
		counts[k]++
		most = max(most, counts[k])
	}
	return most
}

// load is what the authority meets.
type load struct {
	renewals, tokens int // most in one second
	expired          int // agents whose certificate ended
}

// outage cuts all agents off and lets them come back: each notices with its
// next heartbeat, spreads, renews if due and refreshes the tokens that became due.
func (f *fleet) outage(start time.Time, length time.Duration) load {
	end := start.Add(length)
	var renewals, tokens []time.Time
	var l load
	for i := range f.agents {
		renewal, certificateEnd := f.at(i, start)
		back := end.Add(time.Duration(f.chance.Float64() * float64(lifecycle.Heartbeat(f.chance.Float64()))))
		if !certificateEnd.After(back) {
			l.expired++
			continue
		}
		if !renewal.After(back) {
			renewals = append(renewals, back.Add(lifecycle.Spread(length, f.chance.Float64())))
		}
		for range f.resources {
			due := time.Duration(f.chance.Int64N(int64(lifecycle.KeepWarm(f.tokenLife)))) // after start
			if due <= back.Sub(start) {
				tokens = append(tokens, back.Add(lifecycle.Spread(length, f.chance.Float64())))
			}
		}
	}
	l.renewals, l.tokens = peak(renewals, time.Second), peak(tokens, time.Second)
	return l
}

// at follows an agent's renewals to an instant: when the next is due, and when
// the certificate ends.
func (f *fleet) at(agent int, t time.Time) (renewal, end time.Time) {
	renewal, end = f.renewals[agent], f.ends[agent]
	for renewal.Before(t) {
		nb := renewal
		end = nb.Add(90 * day)
		renewal = lifecycle.RenewAt(nb, end, seed(agent))
	}
	return renewal, end
}

// worst is when an outage hurts a fleet of one shift most: it takes in as many
// renewals as it can, all of them if it lasts for the 4.5 days of the spread.
func worst(length time.Duration) time.Time {
	const spread = 45 * day / 10
	middle := born.Add(oneShift/2 + 45*day - spread/2)
	return middle.Add(-min(length, spread) / 2)
}

// years follows the renewals of the fleet for a while, each at its time.
func (f *fleet) years(n int) (perSecond, perHour int) {
	var all []time.Time
	for i := range f.agents {
		for at := f.renewals[i]; at.Before(born.AddDate(n, 0, 0)); {
			all = append(all, at)
			at = lifecycle.RenewAt(at, at.Add(90*day), seed(i))
		}
	}
	return peak(all, time.Second), peak(all, time.Hour)
}

// A million agents onboarded on one day must not renew in one hour. The
// numbers for N agents: go test -run Fleet -v ./agent/lifecycle -fleet.agents=N
func TestFleetThatWasOnboardedInOneDayDoesNotRenewInOneHour(t *testing.T) {
	n := *fleetAgents
	perSecond, perHour := newFleet(n, 10, day, oneShift).years(2)
	t.Logf("%d agents onboarded within %s, seed 1,2", n, oneShift)
	t.Logf("on average: %.0f heartbeats/s, %.3f renewals/s; of 10 resources each: %.1f token refreshes/s (24 h), %.0f (1 h)",
		float64(n)/300, float64(n)/(47*86400), float64(n*10)/(12*3600), float64(n*10)/(50*60))
	t.Logf("over 2 years: at most %d renewals in a second, %d (%.2f %% of the fleet) in an hour",
		perSecond, perHour, 100*float64(perHour)/float64(n))
	// The window is 4.5 days, 108 hours: evenly 0.93 % an hour, and the noise of small fleets.
	if limit := n/70 + 50; perHour > limit {
		t.Errorf("%d renewals in an hour, want at most %d", perHour, limit)
	}
}

// The certificate is renewed with at least 45 days left, so no outage of up to
// 45 days makes one agent expire.
func TestFleetSurvivesAnOutageOfFortyFiveDays(t *testing.T) {
	n := *fleetAgents
	for _, ages := range []struct {
		name       string
		onboarding time.Duration
	}{{"onboarded within one shift, worst time", oneShift}, {"of all ages", allAges}} {
		f := newFleet(n, 10, day, ages.onboarding)
		t.Logf("%d agents, %s, 10 resources of 24 h each, seed 1,2", n, ages.name)
		for _, length := range []time.Duration{hour, day, 30 * day, 45 * day, 60 * day} {
			start := worst(length)
			if ages.onboarding == allAges {
				start = born.Add(allAges)
			}
			l := f.outage(start, length)
			t.Logf("after %4.0f h without the authority: at most %4d renewals/s, %4d token refreshes/s; %6.2f %% expired",
				length.Hours(), l.renewals, l.tokens, 100*float64(l.expired)/float64(n))
			if l.expired > 0 && length < 45*day {
				t.Errorf("%d agents expired in an outage of %s", l.expired, length)
			}
		}
	}
}

// Without the stable jitter the fleet would renew in the hours in which it was
// onboarded: shows that the simulation can tell the difference.
func TestFleetWithoutJitterWouldRenewInItsOnboardingHours(t *testing.T) {
	f := newFleet(10_000, 1, time.Hour, oneShift)
	for i := range f.agents {
		f.renewals[i] = f.ends[i].Add(-45 * day)
	}
	if got := peak(f.renewals, time.Hour); got < f.agents/9 {
		t.Errorf("%d of %d in the worst hour: the simulation does not see a missing jitter", got, f.agents)
	}
}

func BenchmarkFleetOfAMillion(b *testing.B) {
	for b.Loop() {
		perSecond, perHour := newFleet(1_000_000, 1, day, oneShift).years(1)
		b.ReportMetric(float64(perSecond), "renewals/s-peak")
		b.ReportMetric(float64(perHour), "renewals/h-peak")
	}
}
