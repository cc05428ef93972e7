package challenge

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"postern/platform"
)

// The ring against a plain list, over any order of what callers can do.
func TestRingKeepsItsBoundsAndBindings(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRing()
		var now time.Duration
		var all []*entry
		peers := []platform.Peer{
			platform.Unknown, "uid:0", alice, bob, "uid:3", "uid:4", "uid:5", "uid:6", "uid:7", "uid:8",
			"uid:9", "uid:10", "uid:11", "uid:12", "uid:13", "uid:14", "uid:15", "uid:16",
		}
		peer := rapid.SampledFrom(peers)
		t.Repeat(map[string]func(*rapid.T){
			"mint": func(t *rapid.T) {
				for range rapid.IntRange(1, 40).Draw(t, "times") {
					p := peer.Draw(t, "peer")
					name := fmt.Sprint(len(all))
					fresh, gone, err := r.reserve(now, p, name, nil)
					for _, g := range gone {
						if !g.expired(now) && (g.peer != p || !g.presented) {
							t.Fatalf("the key of %v gave way for %v", g.peer, p)
						}
					}
					switch {
					case errors.Is(err, ErrTooMany) && len(r.byPeer[p]) < MaxPerPeer,
						errors.Is(err, ErrBusy) && len(r.byName) < MaxOutstanding:
						t.Fatalf("%v below the bound", err)
					case err == nil:
						fresh.live, fresh.digest = true, sha256.Sum256([]byte(name))
						all = append(all, fresh)
					}
				}
			},
			"present": func(t *rapid.T) {
				if len(all) == 0 {
					return
				}
				e := rapid.SampledFrom(all).Draw(t, "key")
				p := rapid.OneOf(peer, rapid.Just(e.peer)).Draw(t, "peer")
				found := r.find(p, e.digest, now)
				want := r.byName[e.name] == e && p == e.peer && now-e.minted < Life
				if (found == e) != want {
					t.Fatalf("found %v, want %v", found == e, want)
				}
				if found != nil {
					found.presented = true
				}
			},
			"use": func(t *rapid.T) {
				if len(all) > 0 {
					e := rapid.SampledFrom(all).Draw(t, "key")
					was := r.byName[e.name] == e
					if r.remove(e) != was || r.remove(e) {
						t.Fatal("remove does not say whether the key was there")
					}
				}
			},
			"wait": func(t *rapid.T) { now += time.Duration(rapid.Int64Range(0, int64(Life)).Draw(t, "d")) },
			"sweep": func(*rapid.T) {
				r.expire(now)
				for _, e := range r.byName {
					if e.expired(now) {
						t.Fatal("an expired key stayed")
					}
				}
			},
			"": func(t *rapid.T) {
				sum := 0
				for p, own := range r.byPeer {
					if len(own) == 0 || len(own) > MaxPerPeer {
						t.Fatalf("%v has %d keys", p, len(own))
					}
					sum += len(own)
				}
				if sum != len(r.byName) || sum > MaxOutstanding {
					t.Fatalf("%d keys by peer, %d by name", sum, len(r.byName))
				}
			},
		})
	})
}

func TestKeyIsNotValidBeforeItsFileIsComplete(t *testing.T) {
	r := newRing()
	e, _, err := r.reserve(0, alice, "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	e.digest = sha256.Sum256([]byte("secret"))
	if r.find(alice, e.digest, 0) != nil {
		t.Error("a key without a file is valid")
	}
	if why := r.whyNot(alice, e.digest); why.Reason != "wrong or used" {
		t.Errorf("reason %q", why.Reason)
	}
	e.live = true
	if r.find(alice, e.digest, 0) != e {
		t.Error("a complete key is not valid")
	}
}

func TestKeyEndsAtItsLifeBeforeAnySweep(t *testing.T) {
	r := newRing()
	e, _, err := r.reserve(time.Second, alice, "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	e.digest, e.live = sha256.Sum256([]byte("secret")), true
	if r.find(alice, e.digest, time.Second+Life-1) == nil {
		t.Error("ended early")
	}
	if r.find(alice, e.digest, time.Second+Life) != nil {
		t.Error("still valid")
	}
	if why := r.whyNot(alice, e.digest); why.Reason != "expired" {
		t.Errorf("reason %q", why.Reason)
	}
}
