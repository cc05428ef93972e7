package store

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Everything at once, for the race detector: readers, writers, checks, a file
// that is deleted again and again.
func TestReadersAndWritersAndChecksTogether(t *testing.T) {
	dir := scratch(t)
	enrolled(t, dir)
	f, c := openIdentity(t, dir, Options{}), openCache(t, dir, Options{})
	d := openDB(t, filepath.Join(dir, "authority.db"), Options{})
	put(t, d, "b", "k", thing{})
	var group sync.WaitGroup
	for worker := range 3 {
		for name, work := range map[string]func(i int) error{
			"tokens": func(i int) error {
				c.Stage(Change{PutTokens: []TokenRecord{token("a", fmt.Sprint(worker), i)}})
				return c.Commit(context.Background())
			},
			"read": func(int) error {
				_ = c.Tokens()
				_, _, _ = c.Health(), f.Health(), d.Health()
				_, err := f.Identities()
				return errors.Join(err, c.Audit(0, func(AuditEntry) error { return nil }))
			},
			"identity": func(i int) error {
				return f.Update(func(tx *IdentityTx) error { return tx.PutIdentity(testIdentity(fmt.Sprint("w", worker), i)) })
			},
			"check": func(int) error {
				return errors.Join(f.Check(context.Background()), c.Check(context.Background()), d.Check(context.Background()))
			},
			"delete": func(int) error {
				for _, name := range []string{identityName, cacheName, "authority.db"} {
					_ = os.Remove(filepath.Join(dir, name))
				}
				return nil
			},
			"generic": func(i int) error {
				err := d.Update(func(tx *Tx) error { return Put(tx, "b", fmt.Sprint(worker), thing{N: i}) })
				_, err2 := get(d, "b", "k")
				return errors.Join(err, err2, d.Backup(context.Background()))
			},
		} {
			group.Go(func() {
				for i := range 8 {
					// a reader does not wait while the file is put in order: ErrReadOnly
					if err := work(i); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, ErrReadOnly) {
						t.Errorf("%s: %v", name, err)
						return
					}
				}
			})
		}
	}
	group.Wait()
	must(t, errors.Join(f.Check(t.Context()), c.Check(t.Context()), d.Check(t.Context())))
	if got := len(c.Tokens()); got != 3 {
		t.Fatalf("%d tokens, want 3", got)
	}
}

var budgetDays = flag.Int("store.days", 90, "days of TestNinetyDays…")

// 90 days of hourly rounds in a bubble: the files work there, and what they
// cost in flash stays inside the promise of 5 MB a day at 10 resources.
func TestNinetyDaysOfHourlyRoundsStayInsideTheFlashBudget(t *testing.T) {
	dir := scratch(t)
	synctest.Test(t, func(t *testing.T) {
		c := value(OpenCache(context.Background(), dir, Options{}))(t)
		most, seq := int64(0), uint64(0)
		for range *budgetDays {
			before := c.Health().Written
			for range 24 {
				time.Sleep(time.Hour)
				var change Change
				for i := range 10 {
					seq++
					rec := token("7b1e0000-0000-0000-0000-000000000000", fmt.Sprintf("https://resource-%d.example", i), 2000)
					rec.LastUsed = time.Now().UTC()
					change.PutTokens = append(change.PutTokens, rec)
					change.Audit = append(change.Audit, AuditEntry{seq, []byte(entry(seq))})
				}
				commit(t, c, change)
				must(t, c.Check(context.Background()))
			}
			most = max(most, c.Health().Written-before)
		}
		h := c.Health()
		t.Logf("at most %d KB a day, %d KB a round; the file has %d KB", most>>10, most/24>>10, h.Bytes>>10)
		if most > 5<<20 {
			t.Fatalf("%d bytes in a day, the budget is 5 MB", most)
		}
		must(t, c.Close())
	})
}
