package audit

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"postern/platform"
	"postern/store"
)

// firmware-notes/limits.md: what forces a commit, and how soon.
func TestRecordsReachTheDiskWhenTheyShould(t *testing.T) {
	for name, c := range map[string]struct {
		event Event
		by    time.Duration // on the disk then
		not   time.Duration // and not yet then
	}{
		"issued":       {issued("api://x", "fetched"), time.Hour + tick, 59 * time.Minute},
		"cached":       {issued("api://x", "cache"), time.Hour + tick, 59 * time.Minute},
		"first denial": {denied("uid:1", "no"), 5 * time.Second, time.Second},
		"state":        {Event{Name: StateChanged, Reason: "x"}, 5 * time.Second, time.Second},
		"connected":    {Event{Name: Connected}, 5 * time.Second, time.Second},
		"access drift": {Event{Name: AccessDrift, Reason: "x"}, 5 * time.Second, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t)
				stop := w.run()
				defer stop()
				began := time.Now()
				w.Record(c.event)
				after(c.not)
				if w.commits() != 0 {
					t.Errorf("written after %v", time.Since(began))
				}
				after(c.by - c.not)
				if w.commits() != 1 {
					t.Errorf("not written after %v", time.Since(began))
				}
			})
		})
	}
}

func TestRecordsRideOnTheCommitsOfOthers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run()
		w.Record(issued("api://x", "fetched"))
		after(time.Second)
		w.cache.Stage(store.Change{Contact: &store.ContactRecord{FailureReason: "x"}})
		if err := w.cache.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		stop()
		w.restart()
		if got := w.records(); len(got) != 1 {
			t.Errorf("%d records survived", len(got))
		}
	})
}

// A hostile caller cannot wear the card.
func TestDenialsForceACommitEveryFifteenMinutesAtMost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run()
		defer stop()
		before := w.cache.Health().Written
		for i := range 24 * 60 {
			w.Record(denied(platform.UIDPeer(uint32(i%5)), fmt.Sprintf("reason %d", i%3)))
			after(time.Minute)
		}
		if n := w.commits(); n > 24*4+1 {
			t.Errorf("%d commits in a day of denials, want at most 96", n)
		}
		t.Logf("a day of denials: %d commits, %d bytes", w.commits(), w.cache.Health().Written-before)
	})
}

func TestFlappingStateForcesACommitAMinuteAtMost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run()
		defer stop()
		for i := range 3600 {
			w.Record(Event{Name: StateChanged, Reason: fmt.Sprint(i % 50)})
			after(time.Second)
		}
		if n := w.commits(); n > 61 {
			t.Errorf("%d commits in an hour", n)
		}
	})
}

func TestNothingWakesOrWritesWhileNothingHappens(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run()
		defer stop()
		w.Record(issued("api://x", "fetched"))
		after(3 * time.Hour)
		before := w.cache.Health().Written
		if _, some := w.next(); some {
			t.Error("a timer runs although there is nothing to do")
		}
		after(24 * time.Hour)
		if w.cache.Health().Written != before {
			t.Error("an idle day wrote to the disk")
		}
	})
}

func TestRecordNeverWaitsForTheDisk(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		// Both locks that are held around the disk are taken: Record must not need them.
		w.save.Lock()
		w.write.Lock()
		for i := range 100 {
			w.Record(issued(fmt.Sprintf("api://%d", i), "fetched"))
		}
		w.write.Unlock()
		w.save.Unlock()
		if n := len(w.records()); n != 100 {
			t.Errorf("%d records", n)
		}
	})
}

func TestUnwritableDiskLosesNoRecordAndIsTriedAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		if err := os.Rename(w.dir, w.dir+".away"); err != nil {
			t.Fatal(err)
		}
		stop := w.run()
		w.Record(Event{Name: AccessDrift, Reason: "state directory is gone"})
		after(time.Minute)
		if got := w.records(); len(got) != 1 || got[0].Event != AccessDrift {
			t.Errorf("got %+v", got)
		}
		if !strings.Contains(w.out.String(), "audit records not written") {
			t.Errorf("nobody was told: %s", w.out)
		}
		if err := os.Rename(w.dir+".away", w.dir); err != nil {
			t.Fatal(err)
		}
		after(flushDenied + tick)
		stop()
		w.restart()
		if got := w.records(); len(got) != 1 {
			t.Errorf("after the disk came back: %+v", got)
		}
	})
}

func TestCloseWritesOpenMinutesToo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run()
		for range 5 {
			w.Record(issued("api://x", "cache"))
		}
		stop()
		if err := w.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.restart()
		if got := w.records(); len(got) != 2 || got[0].Count+got[1].Count != 5 {
			t.Errorf("got %+v", got)
		}
	})
}
