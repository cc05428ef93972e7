package token

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"postern/agent/lifecycle"
	"postern/store"
)

// quickDir is a directory for a database: in memory where there is a place,
// since every commit waits for the disk.
func quickDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "postern-") //nolint:usetesting // t.TempDir cannot be told where
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func openCache(t testing.TB, dir string, change ...func(*store.Options)) *store.Cache {
	t.Helper()
	var o store.Options
	for _, c := range change {
		c(&o)
	}
	c, err := store.OpenCache(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// reopened is the world after a restart of the process.
func (w *world) reopened(dir string) {
	w.t.Helper()
	if err := w.cache.Close(); err != nil {
		w.t.Fatal(err)
	}
	cache, contact := openCache(w.t, dir), w.contact
	w.restart(func(o *Options) { o.Cache, o.Contact = cache, contact })
}

func TestTokenServedAfterAnOfflineRestart(t *testing.T) {
	for name, c := range map[string]struct {
		reboot  bool
		step    time.Duration // of the wall clock over the reboot
		trusted bool
		wait    time.Duration
		served  bool
	}{
		"same boot":                             {false, 0, true, 30 * time.Minute, true},
		"same boot, untrusted clock":            {false, 0, false, 30 * time.Minute, true},
		"same boot, clock back a day":           {false, -24 * time.Hour, false, 30 * time.Minute, true},
		"same boot, clock back a day, expired":  {false, -24 * time.Hour, false, 60 * time.Minute, false},
		"other boot, trusted clock":             {true, 0, true, 30 * time.Minute, true},
		"other boot, trusted clock, expired":    {true, 0, true, 60 * time.Minute, false},
		"other boot, untrusted clock":           {true, 0, false, 30 * time.Minute, false},
		"other boot, untrusted clock, in 1970":  {true, -30 * 365 * 24 * time.Hour, false, time.Minute, false},
		"other boot, untrusted clock, in 2099":  {true, 99 * 365 * 24 * time.Hour, false, time.Minute, false},
		"other boot, trusted, off for 50 hours": {true, 50 * time.Hour, true, time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				dir := quickDir(t)
				w := newWorld(t, func(o *Options) { o.Cache = openCache(t, dir) })
				stop := w.run()
				first := w.mustAsk(vault)
				stop()
				w.issuer.set(func(f *fakeIssuer) { f.err = unreachable() })
				after(c.wait)
				w.device.set(func(d *clocks) { d.synced = c.trusted; d.wall += c.step })
				if c.reboot {
					w.device.reboot("boot-2", 0)
				}
				// A new process has no memory of an earlier trust.
				w.clock = lifecycle.NewClock(lifecycle.ClockOptions{Source: w.device.read})
				w.reopened(dir)
				w.ids.enter(lifecycle.Offline)
				if !c.trusted {
					w.ids.enter(lifecycle.ClockUntrusted)
				}
				got, err := w.ask(vault)
				if (err == nil) != c.served {
					t.Fatalf("got %v, want served %v", err, c.served)
				}
				if c.served && (!got.Value.Equal(first.Value) || got.Remaining != time.Hour-c.wait) {
					t.Errorf("remaining %v, want %v", got.Remaining, time.Hour-c.wait)
				}
				if c.served && !got.ExpiresOn.Equal(w.clock.Now().Wall.Add(got.Remaining)) {
					t.Errorf("expires on %v; the caller compares it with the clock that it has, %v", got.ExpiresOn, w.clock.Now().Wall)
				}
			})
		})
	}
}

func TestTokenOfAnUntrustedBootIsServedAfterTheClockWasPutRightOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		dir := quickDir(t)
		w := newWorld(t, func(o *Options) { o.Cache = openCache(t, dir) })
		stop := w.run()
		w.device.set(func(c *clocks) { c.synced, c.wall = false, -20*365*24*time.Hour })
		w.mustAsk(vault)
		after(10 * time.Minute)
		w.device.set(func(c *clocks) { c.synced, c.wall = true, 0 })
		after(time.Minute)
		stop()
		w.device.reboot("boot-2", 0)
		w.reopened(dir)
		w.ids.enter(lifecycle.Offline)
		if got := w.mustAsk(vault); got.Remaining != 49*time.Minute {
			t.Errorf("remaining %v, want 49m", got.Remaining)
		}
	})
}

func TestCallersNeverWaitForTheDisk(t *testing.T) {
	bubble(t, func(t *testing.T) {
		dir := quickDir(t)
		w := newWorld(t, func(o *Options) { o.Cache = openCache(t, dir) })
		w.mustAsk(vault)
		if w.Stats().Commits != 0 {
			t.Error("a request wrote to the disk")
		}
		stop := w.run()
		defer stop()
		after(saveSettle / 2)
		w.mustAsk(graph)
		after(saveSettle)
		if n := w.Stats().Commits; n != 1 {
			t.Errorf("%d commits after the round, want 1 for both tokens", n)
		}
		before := w.cache.Health().Written
		for range 100 {
			after(time.Second)
			w.mustAsk(vault)
		}
		if w.cache.Health().Written != before {
			t.Error("cached answers wrote to the disk")
		}
	})
}

func TestTokenUnderAMinuteIsNeverWritten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Cache = openCache(t, quickDir(t)) })
		w.issuer.set(func(f *fakeIssuer) { f.life = 59 * time.Second })
		stop := w.run()
		w.mustAsk(vault)
		after(10 * time.Minute)
		stop()
		if n := len(w.cache.Tokens()); n != 0 {
			t.Errorf("%d tokens were written", n)
		}
	})
}

func TestForgottenTokensLeaveTheFile(t *testing.T) {
	bubble(t, func(t *testing.T) {
		dir := quickDir(t)
		w := newWorld(t, func(o *Options) { o.Cache = openCache(t, dir) })
		stop := w.run()
		w.mustAsk(vault)
		after(time.Minute)
		w.Forget(systemID)
		after(time.Minute)
		stop()
		w.reopened(dir)
		if list := w.List(); len(list) != 0 {
			t.Errorf("after a restart the cache has %+v", list)
		}
	})
}

func TestOwnerAndLastUseSurviveARestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		dir := quickDir(t)
		w := newWorld(t, func(o *Options) { o.Cache = openCache(t, dir) })
		stop := w.run()
		w.mustAsk(vault)
		after(3 * 24 * time.Hour)
		stop()
		w.device.reboot("boot-2", 0)
		w.reopened(dir)
		list := w.List()
		if len(list) != 1 || list[0].Owner != "uid:1001" {
			t.Fatalf("after a restart: %+v", list)
		}
		if off := list[0].Unused - 3*24*time.Hour; off < 0 || off > time.Hour {
			t.Errorf("unused for %v, want 72h, exact to the hour", list[0].Unused)
		}
	})
}

func TestUseOfAnExpiredTokenIsRememberedOnceADay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		dir := quickDir(t)
		w := newWorld(t, func(o *Options) { o.Cache = openCache(t, dir) })
		stop := w.run()
		w.mustAsk(vault)
		after(time.Minute)
		w.issuer.set(func(f *fakeIssuer) { f.err = unreachable() })
		before := w.Stats().Commits
		for range 10 * 24 {
			after(time.Hour)
			_, _ = w.ask(vault)
		}
		if n := w.Stats().Commits - before; n > 12 {
			t.Errorf("%d commits in ten days of outage, want about one a day", n)
		}
		if last := time.Since(w.cache.Tokens()[0].LastUsed); last > 26*time.Hour {
			t.Errorf("a power cut now would make it look unused for %v", last)
		}
		stop()
		w.device.reboot("boot-2", 0)
		w.reopened(dir)
		if list := w.List(); len(list) != 1 || list[0].Unused > 25*time.Hour {
			t.Errorf("the resource that is in use went cold: %+v", list)
		}
	})
}

func TestLastUseRidesOnTheCommitsOfOtherTokens(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Cache = openCache(t, quickDir(t)) })
		dayLong(w)
		stop := w.run()
		defer stop()
		w.mustAsk(vault)
		after(7 * time.Hour)
		w.mustAsk(vault)
		w.mustAsk(graph)
		after(saveSettle)
		for _, r := range w.cache.Tokens() {
			if used := time.Since(r.LastUsed); used > time.Hour+saveSettle {
				t.Errorf("%s was written as unused for %v", r.Resource, used)
			}
		}
	})
}

// firmware-notes/faults.md, ST9: no space. Tokens live in memory, and are written when they
// can be.
func TestST9FullDiskServesFromMemoryAndWritesLater(t *testing.T) {
	bubble(t, func(t *testing.T) {
		dir := quickDir(t)
		var full atomic.Bool
		full.Store(true)
		w := newWorld(t, func(o *Options) {
			o.Cache = openCache(t, dir, func(s *store.Options) {
				s.OpenFile = func(path string, flag int) (*os.File, error) {
					if full.Load() && flag&os.O_CREATE != 0 && strings.Contains(path, "cache.db") {
						return nil, &os.PathError{Op: "open", Path: path, Err: syscall.ENOSPC}
					}
					return os.OpenFile(path, flag, 0o600)
				}
			})
		})
		stop := w.run()
		w.mustAsk(vault)
		after(3 * time.Hour)
		if got := w.mustAsk(vault); !got.FromCache {
			t.Error("not served from memory")
		}
		if w.cache.Health().Mode != store.ModeMemory {
			t.Fatalf("the cache's mode is %s", w.cache.Health().Mode)
		}
		if n := w.log.lines("tokens not written"); n == 0 || n > 360+5 || w.Stats().Commits > 360+5 {
			t.Errorf("%d complaints about %d tries in three hours", n, w.Stats().Commits)
		}
		full.Store(false)
		after(time.Minute)
		stop()
		w.reopened(dir)
		if got := w.mustAsk(vault); !got.FromCache {
			t.Error("after space returned, nothing was written")
		}
	})
}

func TestNonsenseInTheCacheIsNotTakenIn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		now := time.Now().UTC()
		good := store.TokenRecord{ClientID: systemID, Resource: vault, AccessToken: "t", Issued: now, Expires: now.Add(time.Hour), TrustedWall: true}
		bad := func(change func(*store.TokenRecord)) store.TokenRecord {
			r := good
			change(&r)
			return r
		}
		cache := openCache(t, quickDir(t))
		cache.Stage(store.Change{PutTokens: []store.TokenRecord{
			good,
			bad(func(r *store.TokenRecord) { r.Resource = "a b" }),
			bad(func(r *store.TokenRecord) { r.Resource = "api://1"; r.AccessToken = "" }),
			bad(func(r *store.TokenRecord) { r.Resource = "api://2"; r.AccessToken = "x\r\ny" }),
			bad(func(r *store.TokenRecord) { r.Resource = "api://3"; r.Expires = now.Add(100 * time.Hour) }),
			bad(func(r *store.TokenRecord) { r.Resource = "api://4"; r.Expires = now.Add(-time.Hour) }),
			bad(func(r *store.TokenRecord) { r.Resource = "api://5"; r.ClientID = "" }),
		}})
		w := newWorld(t, func(o *Options) { o.Cache = cache })
		if list := w.List(); len(list) != 1 || list[0].Resource != vault {
			t.Errorf("taken in: %+v", list)
		}
	})
}

func TestAFullFileIsTrimmedToTheLimits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cache, now := openCache(t, quickDir(t)), time.Now().UTC()
		var records []store.TokenRecord
		for i := range 200 {
			records = append(records, store.TokenRecord{
				ClientID: systemID, Resource: "api://" + strings.Repeat("x", i+1), AccessToken: "t",
				Issued: now, Expires: now.Add(time.Hour), TrustedWall: true, LastUsed: now.Add(time.Duration(i-200) * time.Hour),
			})
		}
		cache.Stage(store.Change{PutTokens: records})
		w := newWorld(t, func(o *Options) { o.Cache = cache })
		list := w.List()
		if len(list) != 128 {
			t.Fatalf("%d entries, want 128", len(list))
		}
		oldest := slices.MaxFunc(list, func(a, c Cached) int { return int(a.Unused - c.Unused) })
		if oldest.Unused != 128*time.Hour {
			t.Errorf("the entry unused for %v was kept, want the 128 newest", oldest.Unused)
		}
	})
}

// The canary must not be found in the files: they are sealed.
func TestTokensLieSealedOnTheDisk(t *testing.T) {
	bubble(t, func(t *testing.T) {
		dir := quickDir(t)
		w := newWorld(t, func(o *Options) { o.Cache = openCache(t, dir) })
		stop := w.run()
		value := w.mustAsk(vault).Value.Reveal()
		stop()
		files, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(files) == 0 {
			t.Fatal(err, files)
		}
		for _, f := range files {
			content, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(content), value) {
				t.Errorf("%s holds the token in the clear", filepath.Base(f))
			}
		}
	})
}

// An untrusted clock after a flat battery must not make everything look old.
func TestUntrustedClockMakesNothingLookUnused(t *testing.T) {
	for name, step := range map[string]time.Duration{"1970": -30 * 365 * 24 * time.Hour, "2099": 99 * 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				dir := quickDir(t)
				w := newWorld(t, func(o *Options) { o.Cache = openCache(t, dir) })
				stop := w.run()
				w.mustAsk(vault)
				stop()
				w.device.reboot("boot-2", step)
				w.device.set(func(c *clocks) { c.synced = false })
				w.clock = lifecycle.NewClock(lifecycle.ClockOptions{Source: w.device.read})
				w.reopened(dir)
				if list := w.List(); len(list) != 1 || list[0].Live || !list[0].Held {
					t.Errorf("before the clock is right the cache has %+v", list)
				}
				stop = w.run()
				after(time.Hour)
				if list := w.List(); len(list) != 1 || list[0].Unused != time.Hour || list[0].Held {
					t.Errorf("the cache has %+v", list)
				}
				stop()
			})
		})
	}
}
