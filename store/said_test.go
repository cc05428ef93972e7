package store

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// TestFullDiskIsSaidOnceUntilItIsOver: whoever commits tries again each time.
func TestFullDiskIsSaidOnceUntilItIsOver(t *testing.T) {
	var out bytes.Buffer
	var full atomic.Bool
	full.Store(true)
	o := Options{Log: slog.New(slog.NewTextHandler(&out, nil)), WriteFile: func(path string, content []byte) error {
		if full.Load() {
			return &os.PathError{Op: "write", Path: path, Err: syscall.ENOSPC}
		}
		return writePlain(path, content)
	}}
	c := value(OpenCache(t.Context(), scratch(t), o))(t)
	for n := range 4 {
		c.Stage(Change{PutTokens: []TokenRecord{token("a", "r", n)}})
		if err := c.Commit(t.Context()); err == nil {
			t.Fatal("a commit on a full disk")
		}
	}
	full.Store(false)
	must(t, c.Commit(t.Context()))
	must(t, c.Check(t.Context()))
	for words, want := range map[string]int{"cache works in memory": 1, "cache works on the disk again": 1} {
		if got := strings.Count(out.String(), words); got != want {
			t.Errorf("%q was said %d times, want %d: %s", words, got, want, out.String())
		}
	}
	must(t, c.Close())
}
