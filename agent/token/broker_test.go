package token

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/platform"
	"postern/store"
)

func TestCachedTokenIsServedWithoutAnotherCall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		first := w.mustAsk(vault)
		if first.FromCache || first.Identity.ClientID != systemID || first.Resource != vault || first.Remaining != time.Hour {
			t.Errorf("first answer: %+v", first)
		}
		after(10 * time.Minute)
		second := w.mustAsk(vault)
		if !second.FromCache || !second.Value.Equal(first.Value) || second.Remaining != 50*time.Minute {
			t.Errorf("second answer: cached %v, remaining %v", second.FromCache, second.Remaining)
		}
		if !second.ExpiresOn.Equal(first.ExpiresOn) || !second.NotBefore.Equal(first.NotBefore) {
			t.Errorf("the dates moved: %v to %v, then %v to %v", first.NotBefore, first.ExpiresOn, second.NotBefore, second.ExpiresOn)
		}
		if n := w.issuer.count(); n != 1 {
			t.Errorf("%d calls, want 1", n)
		}
	})
}

func TestTokensAreKeptApartByIdentityAndResource(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.ids.add(credential.UserAssigned, userID)
		seen := map[string]bool{}
		for range 2 {
			for _, id := range []string{systemID, userID} {
				for _, resource := range []string{vault, vault + "/", graph} {
					got, err := w.Token(t.Context(), request(id, resource))
					if err != nil {
						t.Fatal(err)
					}
					if !strings.HasPrefix(got.Value.Reveal(), id+"|"+resource+"|") {
						t.Errorf("asked %s for %s, got %s", id, resource, got.Value.Reveal())
					}
					seen[got.Value.Reveal()] = true
				}
			}
		}
		if len(seen) != 6 || w.issuer.count() != 6 {
			t.Errorf("%d tokens by %d calls, want 6 by 6", len(seen), w.issuer.count())
		}
	})
}

func TestStateDecidesWhatACallerGets(t *testing.T) {
	for _, c := range []struct {
		state       lifecycle.State
		cached      bool // a live cached token is served
		asksUncache bool // the authority is asked for one that is not cached
	}{
		{lifecycle.Damaged, false, false},
		{lifecycle.Unenrolled, false, false},
		{lifecycle.Moved, false, false},
		{lifecycle.Rejected, false, false},
		{lifecycle.ClockUntrusted, true, false},
		{lifecycle.Expired, true, false},
		{lifecycle.Offline, true, true},
		{lifecycle.Connected, true, true},
		{lifecycle.State(0), false, false},
		{lifecycle.State(99), false, false},
	} {
		t.Run(c.state.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t)
				w.mustAsk(vault)
				w.ids.enter(c.state)
				_, err := w.ask(vault)
				if c.cached != (err == nil) {
					t.Errorf("cached: got %v, want served %v", err, c.cached)
				}
				if !c.cached {
					wantState(t, err, c.state)
				}
				_, err = w.ask(graph)
				if asked := w.issuer.count() == 2; asked != c.asksUncache {
					t.Errorf("not cached: authority asked %v, want %v", asked, c.asksUncache)
				}
				if !c.asksUncache {
					wantState(t, err, c.state)
				}
			})
		})
	}
}

// T24: a key that others could read earns nothing more; tokens that it earned
// before live on. The answer says why, whatever the state.
func TestExposedKeyEarnsNothingMore(t *testing.T) {
	for _, state := range []lifecycle.State{lifecycle.Connected, lifecycle.Offline} {
		t.Run(state.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t)
				w.mustAsk(vault)
				w.ids.enter(state)
				w.ids.change(systemID, func(s *credential.Standing) {
					s.Credential, s.Exposed, s.Reason, s.Fix = nil, "kek was readable by everyone", "the keys are exposed", "postern reconnect"
				})
				w.mustAsk(vault)
				_, err := w.ask(graph)
				var e *StateError
				if !errors.As(err, &e) || !e.Exposed || e.Fix != "postern reconnect" || e.Error() != "insecure: the keys are exposed" {
					t.Errorf("%v, not cached: %v", state, err)
				}
				stop := w.run()
				time.Sleep(50 * time.Minute) // the refresh of the cached one is long due
				stop()
				if n := w.issuer.count(); n != 1 {
					t.Errorf("%v: the authority was asked %d times", state, n)
				}
			})
		})
	}
}

func wantState(t *testing.T, err error, state lifecycle.State) {
	t.Helper()
	var e *StateError
	if !errors.As(err, &e) || e.State != state || e.Reason != "reason of "+state.String() || e.Fix != "postern cure" {
		t.Errorf("got error %v, want the state %v with reason and fix", err, state)
	}
}

// A state's answer costs no gate, or the state would look like a limit.
func TestStateIsTheAnswerHoweverOftenItIsAsked(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.ids.enter(lifecycle.Expired)
		for i := range 200 {
			_, err := w.ask(fmt.Sprintf("api://%d", i))
			wantState(t, err, lifecycle.Expired)
		}
	})
}

func TestUnknownIdentityIsNotFound(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		if _, err := w.Token(t.Context(), request(userID, vault)); !errors.Is(err, ErrUnknownIdentity) {
			t.Errorf("got %v, want ErrUnknownIdentity", err)
		}
		w.ids.remove(systemID)
		var state *StateError
		if _, err := w.Token(t.Context(), request("", vault)); !errors.As(err, &state) || state.State != lifecycle.Unenrolled {
			t.Errorf("a device without identities answers %v, want the state Unenrolled", err)
		}
		if _, err := w.Resolve(Selector{Key: "client_id", Value: userID}); !errors.Is(err, ErrUnknownIdentity) {
			t.Errorf("Resolve: %v, want ErrUnknownIdentity", err)
		}
	})
}

func TestBadResourceNeverReachesTheAuthority(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		for _, resource := range []string{"", "a b", "a\nb", "a\x00", "ä", "\x7f", strings.Repeat("a", 2049)} {
			if _, err := w.ask(resource); !errors.Is(err, ErrResource) {
				t.Errorf("%.20q: got %v, want ErrResource", resource, err)
			}
		}
		w.mustAsk(strings.Repeat("a", 2048))
		if w.issuer.count() != 1 {
			t.Errorf("%d calls, want 1", w.issuer.count())
		}
	})
}

func TestTokenServedWhileOfflineUntilItExpires(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.mustAsk(vault)
		w.ids.enter(lifecycle.Offline)
		w.issuer.set(func(f *fakeIssuer) { f.delay = time.Hour }) // a black hole
		after(time.Hour - 1*time.Second)
		asked := time.Now()
		got := w.mustAsk(vault)
		if got.Remaining != time.Second || time.Since(asked) != 0 {
			t.Errorf("remaining %v after %v, want 1s at once", got.Remaining, time.Since(asked))
		}
		after(time.Second)
		var state *StateError
		if _, err := w.ask(vault); !errors.As(err, &state) || state.State != lifecycle.Offline || lifecycle.ClassOf(err) != lifecycle.ClassTransient {
			t.Errorf("after its end: got %v, want the state Offline with the failed try", err)
		}
		after(callTime)
	})
}

// No caller sees an error while its token lives (firmware-notes/faults.md, UP9), and a
// failed fetch takes nothing out of the cache (rolesanywhere PR#200).
func TestEveryUpstreamErrorLeavesTheLiveToken(t *testing.T) {
	for _, err := range []error{
		unreachable(),
		&lifecycle.Error{Class: lifecycle.ClassTransient, Throttled: true, Answered: true, RetryAfter: time.Hour},
		&lifecycle.Error{Class: lifecycle.ClassClock}, &lifecycle.Error{Class: lifecycle.ClassRejected, Answered: true},
		&lifecycle.Error{Class: lifecycle.ClassBadResource, Answered: true}, &lifecycle.Error{Class: lifecycle.ClassDenied, Answered: true},
		errors.New("a driver that breaks its contract"),
	} {
		t.Run(lifecycle.ClassOf(err).String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t)
				stop := w.run()
				defer stop()
				first := w.mustAsk(vault)
				w.issuer.set(func(f *fakeIssuer) { f.err = err })
				for range 59 {
					after(time.Minute)
					r := request(systemID, vault)
					r.Refresh = true
					for _, r := range []Request{request(systemID, vault), r} {
						got, err := w.Token(t.Context(), r)
						if err != nil || !got.Value.Equal(first.Value) || !got.FromCache {
							t.Fatalf("%v before its end: %v", got.Remaining, err)
						}
					}
				}
			})
		})
	}
}

// Whatever a driver returns, a 200 is never written without a live token.
func TestNonsenseFromADriverIsNeitherServedNorKept(t *testing.T) {
	secret := store.NewSecret
	for name, issued := range map[string]Issued{
		"zero":          {},
		"empty":         {Value: secret(""), ExpiresIn: time.Hour},
		"no life":       {Value: secret("x"), ExpiresIn: 0},
		"negative life": {Value: secret("x"), ExpiresIn: -time.Hour},
		"26 hours":      {Value: secret("x"), ExpiresIn: 26 * time.Hour},
		"line break":    {Value: secret("x\ny"), ExpiresIn: time.Hour},
		"space":         {Value: secret("x y"), ExpiresIn: time.Hour},
		"32 KiB and 1":  {Value: secret(strings.Repeat("x", 32<<10+1)), ExpiresIn: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t)
				w.issuer.set(func(f *fakeIssuer) {
					f.answer = func(int, *credential.Credential, string) (Issued, error) { return issued, nil }
				})
				got, err := w.ask(vault)
				wantClass(t, err, lifecycle.ClassTransient)
				if !got.Value.Empty() || len(w.List()) != 0 {
					t.Error("it was served or kept")
				}
				if o := w.ids.observations(); len(o) != 1 || o[0].err == nil {
					t.Errorf("the identity was told %v, want an error", o)
				}
			})
		})
	}
}

func TestEveryAnswerIsAudited(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		got := w.mustAsk(vault)
		w.mustAsk(vault)
		events := w.events.list()
		if len(events) != 2 {
			t.Fatalf("%d events, want 2", len(events))
		}
		for i, source := range []string{"fetched", "cache"} {
			e := events[i]
			if e.Name != TokenIssued || e.Source != source || e.Token != got.Value.Digest8() || e.Request.Caller.Peer != "uid:1001" ||
				e.Identity.ClientID != systemID || e.Reason != "no grants configured" || !e.Expires.Equal(got.ExpiresOn) {
				t.Errorf("event %d: %+v", i, e)
			}
		}
	})
}

func TestNoTokenInAnyLogLine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.issuer.set(func(f *fakeIssuer) {
			f.answer = func(n int, _ *credential.Credential, _ string) (Issued, error) {
				if n > 1 {
					return Issued{}, unreachable()
				}
				return Issued{Value: store.NewSecret("canary-7f31"), ExpiresIn: time.Hour}, nil
			}
		})
		stop := w.run()
		w.mustAsk(vault)
		after(2 * time.Hour)
		_, _ = w.ask(vault)
		stop()
		if w.log.lines("token fetched") == 0 || w.log.lines("token not fetched") == 0 {
			t.Fatalf("nothing was logged:\n%s", w.log)
		}
		if strings.Contains(w.log.String(), "canary") {
			t.Errorf("the token is in the log:\n%s", w.log)
		}
	})
}

func TestOneCallersContextEndsOnlyItsOwnWait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.issuer.set(func(f *fakeIssuer) { f.delay = time.Second })
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if _, err := w.Token(ctx, request(systemID, vault)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the context's error", err)
		}
		after(2 * time.Second)
		if got := w.mustAsk(vault); !got.FromCache || w.issuer.count() != 1 {
			t.Errorf("the fetch did not fill the cache: %d calls", w.issuer.count())
		}
	})
}

func TestACallerThatLeftIsNoBug(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, leave := context.WithCancel(t.Context())
		leave()
		_, err := w.Token(ctx, request(systemID, vault))
		wantClass(t, err, lifecycle.ClassTransient)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want it to wrap the context's error", err)
		}
		after(time.Second)
	})
}

func TestProbeAsksForWhatWasUsedLastAndKeepsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		with := w.ids.standings[systemID].Credential
		if err := w.Probe(t.Context(), with); err != nil {
			t.Fatal(err)
		}
		w.mustAsk(graph)
		after(time.Second)
		w.mustAsk(vault)
		w.ids.enter(lifecycle.Rejected)
		w.issuer.set(func(f *fakeIssuer) { f.err = &lifecycle.Error{Class: lifecycle.ClassRejected, Answered: true} })
		observed := len(w.ids.observations())
		wantClass(t, w.Probe(t.Context(), with), lifecycle.ClassRejected)
		calls := w.issuer.since(0)
		if calls[0].resource != probeResource || calls[3].resource != vault {
			t.Errorf("asked for %s, then %s", calls[0].resource, calls[3].resource)
		}
		if len(w.List()) != 2 || len(w.ids.observations()) != observed {
			t.Error("a probe was kept or observed")
		}
	})
}

// Where the kernel hides the boot id, this process still knows its own.
func TestHiddenBootIDProvesALifeWithinTheProcess(t *testing.T) {
	bubble(t, func(t *testing.T) {
		dir := quickDir(t)
		w := newWorld(t, func(o *Options) { o.Cache = openCache(t, dir) })
		w.device.set(func(c *clocks) { c.id, c.synced = "", false })
		stop := w.run()
		w.mustAsk(vault)
		after(10 * time.Minute)
		w.ids.enter(lifecycle.ClockUntrusted)
		if got := w.mustAsk(vault); got.Remaining != 50*time.Minute {
			t.Errorf("%v left, want 50m", got.Remaining)
		}
		stop()
		w.reopened(dir)
		if _, err := w.ask(vault); err == nil {
			t.Error("another process served it: it may be another boot")
		}
	})
}

// The rooms that the broker is wired to fit.
var (
	_ Identities = (*credential.Device)(nil)
	_ Accounts   = platform.Host(nil)
)
