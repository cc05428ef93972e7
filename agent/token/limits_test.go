package token

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/platform"
)

// The numbers of firmware-notes/limits.md.
func TestLimitsAreThoseThatWerePublished(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]bool{
		"entries":                defaultEntries == 128 && defaultPerPeer == 32,
		"remembered refusals":    maxRefusals == 256 && refusalLife == time.Minute,
		"first fetches":          peerRate == rate.Limit(1) && peerBurst == 16,
		"upstream":               upstreamRate == rate.Limit(5) && upstreamBurst == 32 && upstreamAtOnce == 8,
		"forced refresh":         forcedEvery == time.Minute,
		"keep-warm":              warmMost == 32 && warmLife == 7*24*time.Hour,
		"waiting":                callerWait == 20*time.Second && quickWait == 2*time.Second && callTime == 20*time.Second,
		"token":                  maxToken == 32<<10 && maxLife == 25*time.Hour && leastKept == time.Minute,
		"fresh":                  freshLeft == 5*time.Minute,
		"grants and resource":    maxGrants == 1000 && maxResourceBytes == 2048,
		"retry after":            minRetryAfter == time.Second && maxRetryAfter == 10*time.Second,
		"unused gives way":       unusedLife == 24*time.Hour,
		"waits are never longer": tick == 30*time.Second,
	} {
		if !ok {
			t.Errorf("%s: the constants differ from the published ones", name)
		}
	}
}

func wantLimit(t *testing.T, err error, least, most time.Duration) {
	t.Helper()
	var limit *LimitError
	if !errors.Is(err, ErrTooMany) || !errors.As(err, &limit) || limit.RetryAfter < least || limit.RetryAfter > most {
		t.Fatalf("got %v, want ErrTooMany and to come back after %v to %v", err, least, most)
	}
}

// fill fetches n tokens of 24 h for a peer, slowly enough for its gate.
func (w *world) fill(peer platform.Peer, from, n int) {
	w.t.Helper()
	for i := from; i < from+n; i++ {
		after(time.Second)
		if _, err := w.Token(w.t.Context(), by(request(systemID, fmt.Sprintf("api://%d", i)), peer)); err != nil {
			w.t.Fatalf("token %d for %s: %v", i, peer, err)
		}
	}
}

func dayLong(w *world) { w.issuer.set(func(f *fakeIssuer) { f.life = 24 * time.Hour }) }

func TestT10QuotaOfOnePeerHoldsAtTheThirtyThird(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		dayLong(w)
		w.fill("uid:1001", 0, 32)
		after(time.Minute)
		calls := w.issuer.count()
		_, err := w.ask("api://32")
		wantLimit(t, err, 10*time.Second, 10*time.Second)
		if w.issuer.count() != calls {
			t.Error("the refused request reached the authority")
		}
		// What it has goes on being served, to it and to others.
		for i := range 32 {
			for _, peer := range []platform.Peer{"uid:1001", "uid:1002"} {
				if got, err := w.Token(t.Context(), by(request(systemID, fmt.Sprintf("api://%d", i)), peer)); err != nil || !got.FromCache {
					t.Fatalf("token %d for %s: cached %v, %v", i, peer, got.FromCache, err)
				}
			}
		}
		// Others have a quota of their own.
		w.fill("uid:1002", 100, 1)
	})
}

func TestT10CacheHoldsAtThe129th(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		dayLong(w)
		for p := range 4 {
			w.fill(uids[p], 100*p, 32)
		}
		if n := w.Stats().Entries; n != 128 {
			t.Fatalf("%d entries, want 128", n)
		}
		_, err := w.Token(t.Context(), by(request(systemID, "api://one-more"), uids[5]))
		wantLimit(t, err, 10*time.Second, 10*time.Second)
		if n := w.Stats().Entries; n != 128 {
			t.Errorf("%d entries after the refusal, want 128: no live one gives way", n)
		}
		if w.events.list()[len(w.events.list())-1].Name != TokenDenied {
			t.Error("the refusal was not audited")
		}
	})
}

func TestLimitsFollowTheConfiguration(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Limits = Limits{Entries: 3, PerPeer: 2} })
		w.fill("uid:1001", 0, 2)
		_, err := w.ask("api://2")
		wantLimit(t, err, 10*time.Second, 10*time.Second)
		w.fill("uid:1002", 10, 1)
		after(time.Second)
		_, err = w.Token(t.Context(), by(request(systemID, "api://11"), "uid:1002"))
		wantLimit(t, err, 10*time.Second, 10*time.Second)
	})
}

func TestFetchesUnderWayCountTowardsTheLimits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Limits = Limits{Entries: 2, PerPeer: 2} })
		w.issuer.set(func(f *fakeIssuer) { f.delay = time.Second })
		results := make(chan error, 3)
		for i := range 3 {
			go func() {
				_, err := w.ask(fmt.Sprintf("api://%d", i))
				results <- err
			}()
		}
		failed := 0
		for range 3 {
			if err := <-results; err != nil {
				wantLimit(t, err, 10*time.Second, 10*time.Second)
				failed++
			}
		}
		if failed != 1 || w.Stats().Entries != 2 {
			t.Errorf("%d refused, %d entries; want 1 and 2", failed, w.Stats().Entries)
		}
	})
}

func TestExpiredAndUnusedEntriesGiveWayToNewOnes(t *testing.T) {
	for name, c := range map[string]struct {
		life, wait time.Duration
		room       bool
	}{
		"live and used":     {24 * time.Hour, time.Hour, false},
		"expired":           {time.Hour, time.Hour, true},
		"unused for a day":  {25 * time.Hour, 24 * time.Hour, true},
		"unused for 23:59h": {25 * time.Hour, 24*time.Hour - time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, func(o *Options) { o.Limits = Limits{Entries: 1} })
				w.issuer.set(func(f *fakeIssuer) { f.life = c.life })
				w.mustAsk(vault)
				after(c.wait)
				_, err := w.ask(graph)
				if (err == nil) != c.room {
					t.Errorf("the second resource got %v, want room %v", err, c.room)
				}
				if list := w.List(); len(list) != 1 || (list[0].Resource == graph) != c.room {
					t.Errorf("the cache has %+v", list)
				}
			})
		})
	}
}

// An untrusted clock deletes nothing: a token of the boot before, whose end
// cannot be told, keeps its place.
func TestUnprovenTokenGivesWayOnlyUnderATrustedClock(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Limits = Limits{Entries: 1} })
		w.mustAsk(vault)
		w.device.reboot("boot-2", 0)
		w.device.set(func(c *clocks) { c.synced = false })
		_, err := w.ask(graph)
		wantLimit(t, err, 10*time.Second, 10*time.Second)
		w.device.set(func(c *clocks) { c.synced = true })
		if got := w.mustAsk(vault); !got.FromCache {
			t.Error("the token was lost")
		}
	})
}

func TestFirstFetchesOfOnePeerAreGated(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 16 {
			w.mustAsk(fmt.Sprintf("api://%d", i))
		}
		_, err := w.ask("api://16")
		wantLimit(t, err, time.Second, time.Second)
		w.mustAsk("api://0") // what is cached passes no gate
		if _, err := w.Token(t.Context(), by(request(systemID, "api://17"), "uid:1002")); err != nil {
			t.Errorf("another peer: %v", err)
		}
		after(time.Second)
		w.mustAsk("api://16")
		_, err = w.ask("api://18")
		wantLimit(t, err, time.Second, time.Second)
	})
}

func TestUpstreamCallsOfTheDeviceAreGated(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 32 {
			if _, err := w.Token(t.Context(), by(request(systemID, fmt.Sprintf("api://%d", i)), uids[i%4])); err != nil {
				t.Fatal(err)
			}
		}
		_, err := w.Token(t.Context(), by(request(systemID, "api://32"), uids[5]))
		wantLimit(t, err, time.Second, time.Second)
		after(200 * time.Millisecond)
		if _, err := w.Token(t.Context(), by(request(systemID, "api://32"), uids[5])); err != nil {
			t.Errorf("after 200 ms there is room for one: %v", err)
		}
	})
}

// firmware-notes/faults.md, EP10: 10,000 resources by one member.
func TestEP10FloodOfResourcesIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run()
		defer stop()
		w.mustAsk(vault)
		began, calls := time.Now(), w.issuer.count()
		for i := range 10000 {
			_, _ = w.Token(t.Context(), by(request(systemID, fmt.Sprintf("api://flood/%d", i)), "uid:666"))
			if i%100 == 0 {
				after(time.Second)
			}
		}
		seconds := time.Since(began).Seconds()
		if n := float64(w.issuer.count() - calls); n > peerBurst+seconds {
			t.Errorf("%v calls upstream in %v s", n, seconds)
		}
		if st := w.Stats(); st.Entries > 33 || st.Refusals > maxRefusals {
			t.Errorf("the cache grew: %+v", st)
		}
		if got := w.mustAsk(vault); !got.FromCache {
			t.Error("the existing entry was not served")
		}
	})
}

func TestRefusalsOfTheAuthorityAreRememberedForAMinute(t *testing.T) {
	for _, class := range []lifecycle.Class{lifecycle.ClassBadResource, lifecycle.ClassDenied} {
		t.Run(class.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t)
				w.issuer.set(func(f *fakeIssuer) { f.err = &lifecycle.Error{Class: class, Answered: true, Code: "nope"} })
				for range 59 {
					_, err := w.ask(vault)
					wantClass(t, err, class)
					after(time.Second)
				}
				if n := w.issuer.count(); n != 1 {
					t.Errorf("%d calls within a minute, want 1", n)
				}
				after(time.Second)
				w.issuer.set(func(f *fakeIssuer) { f.err = nil })
				w.mustAsk(vault)
			})
		})
	}
}

func TestRememberedRefusalsAreBoundedAndTheOldestGoes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRefusals()
		at := func(i int) key { return key{systemID, fmt.Sprintf("api://%d", i)} }
		no := &lifecycle.Error{Class: lifecycle.ClassDenied}
		for i := range 257 {
			r.remember(at(i), no)
			after(time.Millisecond)
		}
		if len(r.entries) != 256 || r.find(at(0)) != nil || r.find(at(1)) == nil || r.find(at(256)) == nil {
			t.Errorf("%d entries; the oldest should have gone", len(r.entries))
		}
		r.remember(at(1), no)
		if len(r.entries) != 256 || r.find(at(2)) == nil {
			t.Error("renewing an entry pushed another one out")
		}
		after(time.Minute)
		if r.find(at(1)) != nil {
			t.Error("an entry outlived its minute")
		}
	})
}

func TestRetryAfterOfTheAuthorityIsHonoured(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run()
		defer stop()
		w.issuer.set(func(f *fakeIssuer) {
			f.err = &lifecycle.Error{Class: lifecycle.ClassTransient, Throttled: true, Answered: true, RetryAfter: 5 * time.Minute}
		})
		for range 299 {
			_, err := w.ask(vault)
			var e *lifecycle.Error
			if !errors.As(err, &e) || !e.Throttled || e.RetryAfter <= 0 || e.RetryAfter > 5*time.Minute {
				t.Fatalf("got %v", err)
			}
			after(time.Second)
		}
		if n := w.issuer.count(); n != 1 {
			t.Errorf("%d calls before the time that the authority named, want 1", n)
		}
		w.issuer.set(func(f *fakeIssuer) { f.err = nil })
		w.mustAsk(graph) // another resource is not held
		after(time.Second)
		w.mustAsk(vault)
	})
}

func TestGatesForPeersAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeerGates()
		for i := range uint32(maxPeers) {
			if err := p.pass(platform.UIDPeer(i)); err != nil {
				t.Errorf("peer %d: %v", i, err)
			}
		}
		for i := range uint32(peerBurst + 1) { // newcomers share one gate
			err := p.pass(platform.UIDPeer(10000 + i))
			if (err != nil) != (i == peerBurst) {
				t.Errorf("newcomer %d: %v", i, err)
			}
		}
		if len(p.gates) != maxPeers {
			t.Errorf("%d gates, want %d", len(p.gates), maxPeers)
		}
		after(peerBurst * time.Second)
		if err := p.pass("uid:77777"); err != nil {
			t.Errorf("after all went idle: %v", err)
		}
		if len(p.gates) != 1 {
			t.Errorf("%d gates after all went idle, want 1", len(p.gates))
		}
	})
}

// A refusal by the peer's own gate must not use up the device's.
func TestOnePeersFloodLeavesTheUpstreamGateToOthers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.issuer.set(func(f *fakeIssuer) { f.err = &lifecycle.Error{Class: lifecycle.ClassDenied, Answered: true} })
		for i := range 1000 {
			_, _ = w.ask(fmt.Sprintf("api://%d", i))
		}
		w.issuer.set(func(f *fakeIssuer) { f.err = nil })
		for i := range 16 {
			if _, err := w.Token(t.Context(), by(request(systemID, fmt.Sprintf("api://b%d", i)), "uid:1002")); err != nil {
				t.Fatalf("request %d of another peer: %v", i, err)
			}
		}
	})
}

func TestForgetTakesEverythingOfOneIdentityAndNothingElse(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.ids.add(credential.UserAssigned, userID)
		for _, id := range []string{systemID, userID} {
			if _, err := w.Token(t.Context(), request(id, vault)); err != nil {
				t.Fatal(err)
			}
		}
		w.issuer.set(func(f *fakeIssuer) { f.err = &lifecycle.Error{Class: lifecycle.ClassDenied, Answered: true} })
		_, _ = w.ask(graph)
		w.Forget(systemID)
		if list := w.List(); len(list) != 1 || list[0].ClientID != userID || w.Stats().Refusals != 0 {
			t.Errorf("left: %+v, %d refusals", list, w.Stats().Refusals)
		}
	})
}
