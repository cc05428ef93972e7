package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/agent/lifecycle"
	"postern/store"
)

func TestEqualRepeatsWithinAMinuteAreOneRecord(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run()
		defer stop()
		for range 100 { // over 50 s
			w.Record(issued("https://vault.azure.net", "cache"))
			after(500 * time.Millisecond)
		}
		w.Record(issued("https://graph.microsoft.com/", "cache"))
		after(2 * time.Minute)
		got := w.records()
		if len(got) != 3 || got[0].Count != 1 || got[1].Resource != "https://graph.microsoft.com/" || got[2].Count != 99 {
			t.Fatalf("got %+v", got)
		}
		w.Record(issued("https://vault.azure.net", "cache"))
		after(time.Second)
		if got := w.records(); len(got) != 4 || got[3].Count != 1 {
			t.Errorf("after a pause the next one stands alone: %+v", got)
		}
	})
}

func TestEveryEventIsCountedOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run()
		n := 0
		for i := range 3000 {
			w.Record(issued(fmt.Sprintf("api://%d", i%7), "cache"))
			n++
			if i%5 == 0 {
				w.Record(denied("uid:1002", "no grant names uid:1002"))
				n++
			}
			after(time.Second)
		}
		stop()
		if err := w.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.restart()
		var sum uint64
		for _, r := range w.records() {
			sum += r.Count
		}
		if sum != uint64(n) || w.Stats().Dropped != 0 {
			t.Errorf("%d events recorded, %d happened", sum, n)
		}
	})
}

// firmware-notes/attack-surface.md, T29: one line a uid, reason and minute, whatever the caller varies.
func TestT29FloodOfDenialsIsOneRecordAMinute(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run()
		defer stop()
		for i := range 10 * 60 * 20 { // ten minutes
			e := denied("uid:666", "no grant names uid:666")
			e.Resource, e.Agent, e.Identity = fmt.Sprintf("api://%d", i), fmt.Sprintf("agent %d", i), fmt.Sprintf("id %d", i)
			w.Record(e)
			after(50 * time.Millisecond)
		}
		after(time.Minute)
		if n := len(w.records()); n < 10 || n > 13 {
			t.Errorf("%d records in ten minutes, want one a minute", n)
		}
		if n := strings.Count(w.out.String(), "token denied"); n > 13 {
			t.Errorf("%d log lines", n)
		}
	})
}

// A caller that asks for cached tokens in every way it can must not fill the
// ring and wear the card: its minutes grow longer, and nothing is lost.
func TestFloodOfCachedTokensIsThinnedOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run()
		n := 0
		for range 60 { // an hour
			for i := range 128 {
				e := issued(fmt.Sprintf("api://%d", i), "cache")
				e.Agent, e.Expires = fmt.Sprint(n), time.Time{}
				w.Record(e)
				n++
			}
			after(time.Minute)
		}
		if made := w.Stats().Records; made > routineBurst+240+1 {
			t.Errorf("%d records in an hour", made)
		}
		stop()
		if err := w.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		var sum uint64
		for _, r := range w.records() {
			sum += r.Count
		}
		if sum != uint64(n) {
			t.Errorf("%d events counted of %d", sum, n)
		}
	})
}

func TestDifferentEventsWaitingAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range maxFolds + 1 {
			w.Record(issued(fmt.Sprintf("api://%d", i), "fetched"))
		}
		if st := w.Stats(); len(w.folds) != maxFolds || st.Dropped != 1 {
			t.Errorf("%d wait, %d dropped", len(w.folds), st.Dropped)
		}
	})
}

func TestFollowSeesNewRecordsAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run()
		defer stop()
		w.Record(issued("api://old", "fetched"))
		ctx, cancel := context.WithCancel(t.Context())
		var got []string
		done := make(chan error)
		go func() {
			done <- w.Read(ctx, 0, true, func(line []byte) error {
				var r Record
				err := json.Unmarshal(line, &r)
				got = append(got, r.Resource)
				return err
			})
		}()
		synctest.Wait()
		for i := range 3 {
			w.Record(issued(fmt.Sprintf("api://%d", i), "fetched"))
			synctest.Wait()
			if len(got) != i+2 {
				t.Fatalf("after record %d the follower has %v", i, got)
			}
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Read: %v", err)
		}
	})
}

func TestReadBeginsWhereItIsToldAndEndsWhenItIsTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 10 {
			w.Record(issued(fmt.Sprintf("api://%d", i), "fetched"))
		}
		enough, n := errors.New("enough"), 0
		err := w.Read(t.Context(), 7, true, func(line []byte) error {
			if n == 0 && !bytes.Contains(line, []byte(`"seq":7,`)) {
				t.Errorf("began with %s", line)
			}
			if n++; n == 2 {
				return enough
			}
			return nil
		})
		if !errors.Is(err, enough) || n != 2 {
			t.Errorf("%v after %d", err, n)
		}
	})
}

func TestOpenNeedsACacheAndAClock(t *testing.T) {
	t.Parallel()
	if _, err := Open(Options{}); err == nil {
		t.Error("opened without a cache")
	}
}

func BenchmarkRecordRepeat(b *testing.B) {
	clock := lifecycle.NewClock(lifecycle.ClockOptions{Source: func() lifecycle.Reading { return lifecycle.Reading{Wall: time.Now()} }})
	cache, err := store.OpenCache(b.Context(), b.TempDir(), store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = cache.Close() }()
	l, err := Open(Options{Cache: cache, Clock: clock})
	if err != nil {
		b.Fatal(err)
	}
	e := issued("https://vault.azure.net", "cache")
	b.ReportAllocs()
	for b.Loop() {
		l.Record(e)
	}
}
