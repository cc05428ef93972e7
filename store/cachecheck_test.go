package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// The agent checks every 30 s and stages its contact as often, for the next
// commit to take along. A commit at each check would be 36 MB of flash a day.
func TestCheckLeavesTheCommitToWhoeverStages(t *testing.T) {
	c := openCache(t, t.TempDir(), Options{})
	commit(t, c, Change{PutTokens: []TokenRecord{token("a", "r", 1)}})
	before := c.Health().Written
	for i := range 10 {
		c.Stage(Change{PutTokens: []TokenRecord{token("a", "r", i)}, Contact: &ContactRecord{ClockBoot: 1}})
		must(t, c.Check(t.Context()))
	}
	if got := c.Health().Written; got != before {
		t.Errorf("%d bytes were written by checks", got-before)
	}
}

func TestCheckWritesWhatACommitCouldNot(t *testing.T) {
	dir := t.TempDir()
	c := value(OpenCache(context.Background(), dir, Options{}))(t)
	must(t, os.Remove(filepath.Join(dir, cacheName)))
	must(t, os.Mkdir(filepath.Join(dir, cacheName), 0o700)) // nothing can be written under this name
	c.Stage(Change{PutTokens: []TokenRecord{token("a", "r", 1)}})
	failed := errors.Join(c.Check(t.Context()), c.Commit(t.Context()))
	if failed == nil {
		t.Fatal("a commit into a directory succeeded")
	}
	must(t, os.Remove(filepath.Join(dir, cacheName)))
	must(t, c.Check(t.Context()))
	must(t, c.Close())
	if _, err := os.Stat(filepath.Join(dir, cacheName)); errors.Is(err, fs.ErrNotExist) {
		t.Fatal("the file was not made again")
	}
	c = openCache(t, dir, Options{})
	wantTokens(t, c, token("a", "r", 1))
}
