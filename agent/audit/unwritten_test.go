package audit

import (
	"strings"
	"testing"

	"postern/store"
)

func TestFullDiskIsSaidOnceUntilItIsOver(t *testing.T) {
	w := newWorld(t)
	said := func(words string, want int) {
		t.Helper()
		if got := strings.Count(w.out.String(), words); got != want {
			t.Errorf("%q was said %d times, want %d: %s", words, got, want, w.out.String())
		}
	}
	fail := func() {
		t.Helper()
		if err := w.cache.Close(); err != nil { // from here on no commit succeeds
			t.Fatal(err)
		}
		for range 3 {
			w.Record(Event{Name: Connected})
			if err := w.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	fail()
	said("kept in memory", 1)
	cache, err := store.OpenCache(t.Context(), w.dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cache.Close() })
	w.cache, w.o.Cache = cache, cache
	for range 3 {
		w.Record(Event{Name: Connected})
		if err := w.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	said("written again", 1)
	fail()
	said("kept in memory", 2)
}
