package token

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/agent/credential"
	"postern/agent/lifecycle"
)

// firmware-notes/faults.md, EP5.
func TestEP5ThousandCallersMakeOneCall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.issuer.set(func(f *fakeIssuer) { f.delay = 500 * time.Millisecond })
		var wait sync.WaitGroup
		var got atomic.Int32
		for range 1000 {
			wait.Go(func() {
				if tok, err := w.ask(vault); err == nil && !tok.Value.Empty() {
					got.Add(1)
				}
			})
		}
		wait.Wait()
		if got.Load() != 1000 || w.issuer.count() != 1 {
			t.Errorf("%d of 1000 served by %d calls, want all by one", got.Load(), w.issuer.count())
		}
	})
}

// firmware-notes/faults.md, EP6.
func TestEP6HangUpOfTheFirstCallerHarmsNobody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.issuer.set(func(f *fakeIssuer) { f.delay = time.Second })
		ctx, hangUp := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		wait.Go(func() {
			if _, err := w.Token(ctx, request(systemID, vault)); !errors.Is(err, context.Canceled) {
				t.Errorf("first caller: %v", err)
			}
		})
		synctest.Wait()
		for range 9 {
			wait.Go(func() {
				if _, err := w.ask(vault); err != nil {
					t.Errorf("another caller: %v", err)
				}
			})
		}
		synctest.Wait()
		hangUp()
		wait.Wait()
		if w.issuer.count() != 1 {
			t.Errorf("%d calls, want 1", w.issuer.count())
		}
		if got := w.mustAsk(vault); !got.FromCache {
			t.Error("the cache was not filled")
		}
	})
}

// firmware-notes/faults.md, UP2: an authority that swallows everything.
func TestUP2SilentAuthorityIsGivenUpAfterTwoSeconds(t *testing.T) {
	for _, state := range []lifecycle.State{lifecycle.Connected, lifecycle.Offline} {
		t.Run(state.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t)
				w.ids.enter(state)
				w.issuer.set(func(f *fakeIssuer) { f.delay = time.Hour })
				asked := time.Now()
				_, err := w.ask(vault)
				wantClass(t, err, lifecycle.ClassTransient)
				if took := time.Since(asked); took != 2*time.Second {
					t.Errorf("gave up after %v, want 2s", took)
				}
				var s *StateError
				if errors.As(err, &s) != (state == lifecycle.Offline) {
					t.Errorf("in state %v the error is %v", state, err)
				}
				after(callTime)
				if st := w.Stats(); st.Flights != 0 || st.Failed != 1 {
					t.Errorf("the call goes on for longer than 20 s: %+v", st)
				}
			})
		})
	}
}

// lively is an issuer that shows life, as a finished TLS handshake does, and
// then takes its time.
type lively struct {
	*fakeIssuer
	reach func(context.Context)
}

func (l lively) Issue(ctx context.Context, with *credential.Credential, resource string) (Issued, error) {
	l.reach(ctx)
	return l.fakeIssuer.Issue(ctx, with, resource)
}

func TestSlowAuthorityThatAnswersIsWaitedForTwentySeconds(t *testing.T) {
	for name, c := range map[string]struct {
		takes time.Duration
		wait  time.Duration
		fails bool
	}{
		"15 s": {15 * time.Second, 15 * time.Second, false},
		"21 s": {21 * time.Second, 20 * time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t)
				w.issuer.set(func(f *fakeIssuer) { f.delay = c.takes })
				w.Broker.issuer = lively{w.issuer, gotFirstByte}
				asked := time.Now()
				if _, err := w.ask(vault); (err != nil) != c.fails {
					t.Errorf("got %v", err)
				}
				if took := time.Since(asked); took != c.wait {
					t.Errorf("waited %v, want %v", took, c.wait)
				}
			})
		})
	}
}

func TestEightCallsAtOnceAndNoMore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.issuer.set(func(f *fakeIssuer) { f.delay = 4 * time.Second })
		w.Broker.issuer = lively{w.issuer, gotFirstByte}
		var wait sync.WaitGroup
		var failed atomic.Int32
		for i := range 24 {
			wait.Go(func() {
				// Several peers, so that no gate stands in the way.
				r := by(request(systemID, fmt.Sprintf("api://%d", i)), uids[i%len(uids)])
				if _, err := w.Token(t.Context(), r); err != nil {
					failed.Add(1)
				}
			})
		}
		began := time.Now()
		wait.Wait()
		if w.issuer.most != upstreamAtOnce || upstreamAtOnce != 8 {
			t.Errorf("%d calls at once, want 8", w.issuer.most)
		}
		if failed.Load() != 0 || time.Since(began) != 12*time.Second {
			t.Errorf("%d of 24 failed after %v; the third eight should have waited for 8 s", failed.Load(), time.Since(began))
		}
	})
}

func TestOneSlowResourceBlocksNoOther(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.mustAsk(vault)
		w.issuer.set(func(f *fakeIssuer) { f.delay = time.Hour })
		go func() { _, _ = w.ask(graph) }()
		synctest.Wait()
		asked := time.Now()
		w.mustAsk(vault)
		w.List()
		w.Stats()
		if time.Since(asked) != 0 {
			t.Errorf("a cached token took %v", time.Since(asked))
		}
		after(time.Minute)
	})
}

func TestPreviousCredentialHelpsOutOnceWhileTheNewKeySpreads(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		older := &credential.Credential{Identity: systemIdent}
		w.ids.change(systemID, func(s *credential.Standing) { s.Previous = older })
		current := w.ids.standings[systemID].Credential
		w.issuer.set(func(f *fakeIssuer) {
			f.answer = func(_ int, with *credential.Credential, _ string) (Issued, error) {
				if with == older {
					return Issued{Value: secretOf("by-the-older-key"), ExpiresIn: time.Hour}, nil
				}
				return Issued{}, &lifecycle.Error{Class: lifecycle.ClassTransient, Answered: true, Err: ErrNotReplicated}
			}
		})
		if got := w.mustAsk(vault); got.Value.Reveal() != "by-the-older-key" {
			t.Errorf("got %s", got.Value.Reveal())
		}
		o := w.ids.observations()
		if len(o) != 2 || o[0].with != current || o[0].err == nil || o[1].with != older || o[1].err != nil {
			t.Errorf("observed %+v; want the refusal of the new key, then the success of the old one", o)
		}
	})
}

func TestPreviousCredentialIsNotTriedForOtherErrors(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.ids.change(systemID, func(s *credential.Standing) { s.Previous = &credential.Credential{Identity: systemIdent} })
		for _, err := range []error{
			unreachable(), &lifecycle.Error{Class: lifecycle.ClassRejected, Answered: true}, &lifecycle.Error{Class: lifecycle.ClassDenied, Answered: true},
		} {
			w.issuer.set(func(f *fakeIssuer) { f.err = err })
			before := w.issuer.count()
			_, _ = w.ask("api://" + lifecycle.ClassOf(err).String())
			if n := w.issuer.count() - before; n != 1 {
				t.Errorf("%v: %d calls, want 1", err, n)
			}
		}
	})
}

func TestStateIsAskedAgainBeforeTheCall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.issuer.set(func(f *fakeIssuer) { f.delay = 3 * time.Second })
		w.Broker.issuer = lively{w.issuer, gotFirstByte}
		var wait sync.WaitGroup
		for i := range 9 {
			wait.Go(func() {
				_, err := w.Token(t.Context(), by(request(systemID, fmt.Sprintf("api://%d", i)), uids[i]))
				var state *StateError
				if i == 8 && (!errors.As(err, &state) || state.State != lifecycle.Rejected) {
					t.Errorf("the ninth got %v, want the state Rejected", err)
				}
			})
			synctest.Wait()
		}
		w.ids.enter(lifecycle.Rejected)
		wait.Wait()
		if w.issuer.count() != 8 {
			t.Errorf("%d calls; the ninth waited for its turn and must see the state of then", w.issuer.count())
		}
	})
}

func TestExposedIdentityGetsNothingNew(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.ids.change(systemID, func(s *credential.Standing) { s.Credential = nil })
		if _, err := w.ask(vault); err == nil || w.issuer.count() != 0 {
			t.Errorf("got %v after %d calls", err, w.issuer.count())
		}
	})
}

func TestForgottenIdentityGetsNothingFromAFetchUnderWay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.mustAsk(vault)
		w.issuer.set(func(f *fakeIssuer) { f.delay = time.Second })
		var wait sync.WaitGroup
		wait.Go(func() {
			if got, err := w.ask(graph); !errors.Is(err, ErrUnknownIdentity) {
				t.Errorf("got %v, %v, want ErrUnknownIdentity", got, err)
			}
		})
		synctest.Wait()
		w.Forget(systemID)
		wait.Wait()
		if list := w.List(); len(list) != 0 {
			t.Errorf("the cache still has %+v", list)
		}
	})
}
