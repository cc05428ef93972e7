package token

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"postern/agent/credential"
	"postern/agent/lifecycle"
)

func TestTokensInUseAreRefreshedAheadOfTheirEnd(t *testing.T) {
	for name, c := range map[string]struct{ life, at time.Duration }{
		"one hour: ten minutes before": {time.Hour, 50 * time.Minute},
		"a day: half-life":             {24 * time.Hour, 12 * time.Hour},
		"three hours: half-life":       {3 * time.Hour, 90 * time.Minute},
		"a quarter: half-life":         {15 * time.Minute, 450 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t)
				w.issuer.set(func(f *fakeIssuer) { f.life = c.life })
				stop := w.run()
				defer stop()
				w.mustAsk(vault)
				began := time.Now()
				after(c.at - time.Second)
				if n := w.issuer.count(); n != 1 {
					t.Fatalf("%d calls after %v, want 1", n, time.Since(began))
				}
				after(tick)
				if n := w.issuer.count(); n != 2 {
					t.Errorf("%d calls after %v, want 2", n, time.Since(began))
				}
			})
		})
	}
}

func TestResourceUnusedForAWeekGoesCold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run()
		defer stop()
		w.mustAsk(vault)
		after(7*24*time.Hour - time.Hour)
		warm := w.issuer.count()
		if got := w.List(); len(got) != 1 || !got[0].Live {
			t.Fatalf("within a week: %+v", got)
		}
		if warm < 190 { // 168 h at 50 min each
			t.Errorf("%d calls in a week, want one every 50 min", warm)
		}
		after(3 * time.Hour)
		cold := w.issuer.count()
		after(7 * 24 * time.Hour)
		if n := w.issuer.count(); n != cold {
			t.Errorf("%d calls for a resource that nobody asks for", n-cold)
		}
		if n := len(w.List()); n != 0 {
			t.Errorf("%d entries are kept for it", n)
		}
	})
}

func TestOnlyTheThirtyTwoMostRecentStayWarm(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run()
		defer stop()
		for i := range 40 {
			after(time.Second)
			if _, err := w.Token(t.Context(), by(request(systemID, fmt.Sprintf("api://%02d", i)), uids[i%2])); err != nil {
				t.Fatal(err)
			}
		}
		after(59 * time.Minute)
		var live []string
		for _, c := range w.List() {
			if c.Left > 10*time.Minute {
				live = append(live, c.Resource)
			}
		}
		if len(live) != 32 || live[0] != "api://08" {
			t.Errorf("%d are warm, from %s on; want the newest 32", len(live), live[0])
		}
	})
}

func TestKeepWarmIsNotUse(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run()
		defer stop()
		w.mustAsk(vault)
		after(5 * time.Hour)
		if got := w.List()[0].Unused; got != 5*time.Hour {
			t.Errorf("unused for %v, want 5h: background refreshes are nobody's requests", got)
		}
	})
}

func TestNobodyIsContactedInStatesThatForbidIt(t *testing.T) {
	for _, state := range []lifecycle.State{
		lifecycle.Damaged, lifecycle.Unenrolled, lifecycle.Moved, lifecycle.Rejected, lifecycle.ClockUntrusted, lifecycle.Expired,
	} {
		t.Run(state.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t)
				stop := w.run()
				defer stop()
				w.mustAsk(vault)
				w.ids.enter(state)
				for range 48 {
					after(time.Hour)
					_, _ = w.ask(vault)
					r := request(systemID, vault)
					r.Refresh = true
					_, _ = w.Token(t.Context(), r)
				}
				if n := w.issuer.count(); n != 1 {
					t.Errorf("%d calls, want only the first", n)
				}
				if list := w.List(); len(list) == 1 && list[0].Attempts != 0 {
					t.Errorf("%d tries that could only fail", list[0].Attempts)
				}
			})
		})
	}
}

// UP9 of firmware-notes/faults.md. Eight resources, one of them asked for all the time.
func TestUP9OutageAndReturn(t *testing.T) {
	for name, c := range map[string]struct{ outage, within time.Duration }{
		"1 h":     {59 * time.Minute, 10 * time.Second},
		"24 h":    {24 * time.Hour, 60 * time.Second},
		"30 days": {30 * 24 * time.Hour, 60 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t)
				w.issuer.set(func(f *fakeIssuer) { f.life = 24 * time.Hour })
				stop := w.run()
				defer stop()
				for i := range 8 {
					w.mustAsk(fmt.Sprintf("api://%d", i))
				}
				w.issuer.set(func(f *fakeIssuer) { f.life = time.Hour })
				after(15 * time.Hour) // all are of an hour now
				w.issuer.set(func(f *fakeIssuer) { f.err = unreachable() })
				served := outageWithCallers(t, w, c.outage)
				if c.outage < time.Hour && served == 0 {
					t.Error("no caller was served in the outage")
				}

				calls, back := w.issuer.count(), time.Now()
				w.issuer.set(func(f *fakeIssuer) { f.err = nil })
				w.ids.enter(lifecycle.Connected)
				if got := w.mustAsk("api://3"); time.Since(back) != 0 || got.Remaining <= 0 {
					t.Errorf("the waiting caller was served after %v", time.Since(back))
				}
				if c.outage < time.Hour { // its token still lived, so it may have been no call
					w.contact.Seen(w.clock.Now())
				}
				after(c.within + time.Second)
				made := w.issuer.since(calls)
				per := map[string]int{}
				for _, call := range made {
					per[call.resource]++
					if call.at.Sub(back) > c.within {
						t.Errorf("%s after %v, want within %v", call.resource, call.at.Sub(back), c.within)
					}
				}
				for resource, n := range per {
					if n != 1 {
						t.Errorf("%d calls for %s after the return, want 1", n, resource)
					}
				}
				if c.outage > time.Hour && len(per) != 8 {
					t.Errorf("%d of 8 resources are fresh again", len(per))
				}
				for _, entry := range w.List() {
					if !entry.Live {
						t.Errorf("%s has no live token", entry.Resource)
					}
				}
			})
		})
	}
}

// outageWithCallers lets the outage pass with a caller every ten minutes and
// returns how many were served. Whoever has a live token must be.
func outageWithCallers(t *testing.T, w *world, outage time.Duration) (served int) {
	t.Helper()
	end := time.Now().Add(outage)
	for n := 0; time.Now().Before(end); n++ {
		if n == 2 {
			w.ids.enter(lifecycle.Offline)
		}
		resource := fmt.Sprintf("api://%d", n%8)
		i := slices.IndexFunc(w.List(), func(c Cached) bool { return c.Resource == resource })
		live := w.List()[i].Live
		asked := time.Now()
		_, err := w.ask(resource)
		if live && (err != nil || time.Since(asked) > quickWait) {
			t.Fatalf("a caller with a live token got %v after %v", err, time.Since(asked))
		}
		if err == nil {
			served++
		}
		after(min(10*time.Minute, time.Until(end)))
	}
	return served
}

func TestWhileTheAuthorityIsNotHeardOneKeyTriesForAll(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run()
		defer stop()
		for i := range 16 {
			w.mustAsk(fmt.Sprintf("api://%d", i))
		}
		w.issuer.set(func(f *fakeIssuer) { f.err = unreachable() })
		before := w.issuer.count()
		after(time.Hour)
		// Due for ten minutes, alone with a floor of 30 s and a cap of 1 min.
		if n := w.issuer.count() - before; n < 8 || n > 25 {
			t.Errorf("%d tries in ten minutes, want one or two a minute for all 16", n)
		}
		before = w.issuer.count()
		after(24 * time.Hour)
		if n := w.issuer.count() - before; n > 60 {
			t.Errorf("%d tries in a day without a token to lose, want few", n)
		}
	})
}

func TestKeepWarmWaitsAsLongAsTheAuthorityAsks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		dayLong(w)
		stop := w.run()
		defer stop()
		w.mustAsk(vault)
		w.issuer.set(func(f *fakeIssuer) {
			f.err = &lifecycle.Error{Class: lifecycle.ClassTransient, Answered: true, Throttled: true, RetryAfter: time.Hour}
		})
		after(12 * time.Hour)
		before := w.issuer.count()
		after(6 * time.Hour)
		if n := w.issuer.count() - before; n < 5 || n > 6 {
			t.Errorf("%d tries in 6 h, want one an hour", n)
		}
	})
}

func TestRefreshesLeaveTheGateToCallers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run()
		defer stop()
		for i := range 32 {
			after(200 * time.Millisecond)
			if _, err := w.Token(t.Context(), by(request(systemID, fmt.Sprintf("api://%d", i)), uids[i%2])); err != nil {
				t.Fatal(err)
			}
		}
		calls := w.issuer.count()
		for w.issuer.count() < calls+8 { // a round of 32 has begun
			after(time.Second / 10)
		}
		for i := range 16 {
			if _, err := w.Token(t.Context(), by(request(systemID, fmt.Sprintf("api://new/%d", i)), uids[9])); err != nil {
				t.Errorf("new resource %d: %v", i, err)
			}
		}
	})
}

func TestRegainedContactIsUsedAtOnceWhoeverNoticedIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run()
		defer stop()
		w.mustAsk(vault)
		w.issuer.set(func(f *fakeIssuer) { f.err = unreachable() })
		after(20 * time.Hour)
		w.issuer.set(func(f *fakeIssuer) { f.err = nil })
		w.contact.Seen(w.clock.Now()) // the heartbeat got through
		after(time.Minute)
		if got := w.List(); !got[0].Live {
			t.Errorf("a minute after contact was regained: %+v", got)
		}
	})
}

// Contact may come back while the loop is busy with something else.
func TestRegainedContactIsNeverMissed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run()
		defer stop()
		synctest.Wait() // the loop listens
		for range 20 {
			w.contact.Failed(w.clock.Now(), unreachable())
			w.mu.Lock()
			w.warm.probeAt = 1 << 62
			w.poke() // the loop goes into a round, and waits for the lock there
			for range 100 {
				runtime.Gosched()
			}
			w.contact.Seen(w.clock.Now())
			w.poke()
			w.mu.Unlock()
			synctest.Wait()
			w.mu.RLock()
			missed := w.warm.probeAt != 0
			w.mu.RUnlock()
			if missed {
				t.Fatal("the end of an outage was missed")
			}
		}
	})
}

func TestRefreshesOfOneRoundShareOneCommit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Cache = openCache(t, quickDir(t)) })
		w.issuer.set(func(f *fakeIssuer) {
			f.answer = func(n int, _ *credential.Credential, _ string) (Issued, error) {
				return Issued{Value: secretOf(fmt.Sprintf("%02000d", n)), ExpiresIn: time.Hour}, nil // 2 KB, as an authority's
			}
		})
		stop := w.run()
		for i := range 10 {
			w.mustAsk(fmt.Sprintf("api://%d", i))
			after(30 * time.Second) // so that they are not of one age
		}
		after(2 * time.Hour)
		commits, written := w.Stats().Commits, w.cache.Health().Written
		after(24 * time.Hour)
		commits, written = w.Stats().Commits-commits, w.cache.Health().Written-written
		if commits > 30 {
			t.Errorf("%d commits a day for ten resources of an hour, want one a round: at most 30", commits)
		}
		if written > 5<<20 {
			t.Errorf("%d bytes written in a day, want at most 5 MB", written)
		}
		stop()
		t.Logf("10 resources refreshed hourly: %d commits, %d bytes a day", commits, written)
	})
}

func TestIdentityTakenOffTheDeviceLosesItsTokens(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run()
		defer stop()
		w.ids.add(credential.UserAssigned, userID)
		for _, id := range []string{systemID, userID} {
			if _, err := w.Token(t.Context(), request(id, vault)); err != nil {
				t.Fatal(err)
			}
		}
		w.ids.remove(userID)
		after(tick)
		if list := w.List(); len(list) != 1 || list[0].ClientID != systemID {
			t.Errorf("left: %+v", list)
		}
	})
}

// A damaged store shows no identities. Its repair must find the tokens.
func TestTokensOutliveAStoreThatShowsNoIdentities(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run()
		defer stop()
		w.mustAsk(vault)
		was := w.ids.standings[systemID]
		w.ids.remove(systemID)
		after(time.Hour / 2)
		w.ids.change(systemID, func(s *credential.Standing) { *s = was })
		if got := w.mustAsk(vault); !got.FromCache {
			t.Error("the token was thrown away")
		}
	})
}
