package token

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"postern/store"
)

func TestNoTokenWithUnderFiveMinutesWhileAFresherOneCanBeHad(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.mustAsk(vault)
		after(55 * time.Minute)
		if got := w.mustAsk(vault); got.Remaining != 5*time.Minute || !got.FromCache {
			t.Errorf("at five minutes: %v left, cached %v", got.Remaining, got.FromCache)
		}
		after(time.Second)
		if got := w.mustAsk(vault); got.Remaining != time.Hour || got.FromCache {
			t.Errorf("below five minutes: %v left, cached %v; want a fresh one", got.Remaining, got.FromCache)
		}
	})
}

func TestSlowAuthorityDelaysALivingTokenByTwoSecondsAtMost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.mustAsk(vault)
		after(56 * time.Minute)
		w.issuer.set(func(f *fakeIssuer) { f.delay = time.Minute })
		w.Broker.issuer = lively{w.issuer, gotFirstByte} // it is there, and slow
		asked := time.Now()
		if got := w.mustAsk(vault); !got.FromCache || time.Since(asked) != quickWait {
			t.Errorf("cached %v after %v", got.FromCache, time.Since(asked))
		}
		after(callTime) // the call ends without an answer
		asked = time.Now()
		if got := w.mustAsk(vault); !got.FromCache || time.Since(asked) != 0 {
			t.Errorf("after a failure: cached %v after %v, want at once", got.FromCache, time.Since(asked))
		}
	})
}

// Tokens that live shorter than the five minutes must not be fetched anew for
// every request.
func TestShortLivedTokensAreServedFromMemory(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.issuer.set(func(f *fakeIssuer) { f.life = 4 * time.Minute })
		for range 240 {
			after(time.Second)
			w.mustAsk(vault)
		}
		if n := w.issuer.count(); n > 5 {
			t.Errorf("%d calls in four minutes, want at most one a minute", n)
		}
	})
}

func TestTokenUnderAMinuteIsHandedOutOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.issuer.set(func(f *fakeIssuer) { f.life = 59 * time.Second })
		first, second := w.mustAsk(vault), w.mustAsk(vault)
		if first.FromCache || second.FromCache || first.Value.Equal(second.Value) || len(w.List()) != 0 {
			t.Errorf("a token of 59 s was kept: %v %v, %d entries", first.FromCache, second.FromCache, len(w.List()))
		}
		w.issuer.set(func(f *fakeIssuer) { f.life = time.Minute })
		w.mustAsk(vault)
		if got := w.mustAsk(vault); !got.FromCache {
			t.Error("a token of 60 s was not kept")
		}
	})
}

func TestForcedRefreshGoesPastTheCacheOnceAMinute(t *testing.T) {
	sum := func(s store.Secret) string {
		h := sha256.Sum256([]byte(s.Reveal()))
		return hex.EncodeToString(h[:])
	}
	for name, force := range map[string]func(r *Request, last Token){
		"refresh": func(r *Request, _ Token) { r.Refresh = true },
		"digest":  func(r *Request, last Token) { r.RefreshDigest = sum(last.Value) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t)
				last := w.mustAsk(vault)
				fetched := 0
				for range 300 {
					r := request(systemID, vault)
					force(&r, last)
					got, err := w.Token(t.Context(), r)
					if err != nil {
						t.Fatal(err)
					}
					if !got.FromCache {
						fetched++
					}
					last = got
					after(time.Second)
				}
				if fetched != 5 {
					t.Errorf("%d refreshes in 5 minutes, want 5", fetched)
				}
			})
		})
	}
}

func TestDigestOfAnotherTokenForcesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		got := w.mustAsk(vault)
		right := sha256.Sum256([]byte(got.Value.Reveal()))
		wrong := sha256.Sum256([]byte("another"))
		for _, digest := range []string{
			hex.EncodeToString(wrong[:]), hex.EncodeToString(right[:])[:63], strings.ToUpper(hex.EncodeToString(right[:])), "x",
		} {
			r := request(systemID, vault)
			r.RefreshDigest = digest
			if got, err := w.Token(t.Context(), r); err != nil || !got.FromCache {
				t.Errorf("digest %q: cached %v, %v", digest, got.FromCache, err)
			}
		}
	})
}

func TestAFailedForcedRefreshServesTheLivingToken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		first := w.mustAsk(vault)
		w.issuer.set(func(f *fakeIssuer) { f.err = unreachable() })
		r := request(systemID, vault)
		r.Refresh = true
		if got, err := w.Token(t.Context(), r); err != nil || !got.FromCache || !got.Value.Equal(first.Value) {
			t.Errorf("got cached %v, %v", got.FromCache, err)
		}
	})
}

// The link went down a moment ago, and the state does not say so yet.
func TestLivingTokenIsServedAtOnceAfterAFailure(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.mustAsk(vault)
		after(56 * time.Minute)
		w.issuer.set(func(f *fakeIssuer) { f.delay = time.Hour })
		w.contact.Failed(w.clock.Now(), unreachable()) // the heartbeat's
		asked := time.Now()
		if got := w.mustAsk(vault); !got.FromCache || time.Since(asked) != 0 {
			t.Errorf("cached %v after %v", got.FromCache, time.Since(asked))
		}
		after(time.Minute)
	})
}
