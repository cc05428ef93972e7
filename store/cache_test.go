package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"pgregory.net/rapid"
)

func commit(t testing.TB, c *Cache, change Change) {
	t.Helper()
	c.Stage(change)
	must(t, c.Commit(context.Background()))
}

func wantTokens(t testing.TB, c *Cache, want ...TokenRecord) {
	t.Helper()
	if got := c.Tokens(); len(got) != len(want) || len(want) > 0 && !reflect.DeepEqual(got, want) {
		t.Fatalf("tokens\n%.300v, want\n%.300v", got, want)
	}
}

func TestTokensSurviveReopening(t *testing.T) {
	dir := t.TempDir()
	c := value(OpenCache(t.Context(), dir, Options{Verify: childVerify}))(t)
	contact := ContactRecord{LastContact: time.Unix(1_700_000_000, 0).UTC(), FailureClass: "transient"}
	commit(t, c, Change{PutTokens: []TokenRecord{token("b", "r", 1), token("a", "r", 1), token("a", "q", 1)}, Contact: &contact})
	commit(t, c, Change{PutTokens: []TokenRecord{token("a", "r", 2)}, DropTokens: []TokenKey{{"b", "r"}, {"x", "y"}}})
	c.Stage(Change{PutTokens: []TokenRecord{token("a", "lost", 1)}}) // never committed
	must(t, c.Close())
	c = openCache(t, dir, Options{Verify: childVerify})
	wantTokens(t, c, token("a", "q", 1), token("a", "r", 2))
	if c.Contact() != contact {
		t.Fatalf("contact %+v", c.Contact())
	}
}

func TestPutAfterDropInOneChangeKeepsTheToken(t *testing.T) {
	c := openCache(t, t.TempDir(), Options{})
	commit(t, c, Change{PutTokens: []TokenRecord{token("a", "r", 1)}, DropTokens: []TokenKey{{"a", "r"}}})
	wantTokens(t, c, token("a", "r", 1))
}

func TestIdleCacheWritesNothing(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir, Options{})
	commit(t, c, Change{PutTokens: []TokenRecord{token("a", "r", 1)}})
	before, files := c.Health().Written, contents(t, dir)
	for range 5 {
		must(t, c.Commit(t.Context()))
		must(t, c.Check(t.Context()))
	}
	if c.Health().Written != before || !reflect.DeepEqual(contents(t, dir), files) {
		t.Fatal("something was written")
	}
}

func TestRoundOfManyTokensIsOneCommit(t *testing.T) {
	c := openCache(t, t.TempDir(), Options{})
	before := c.Health().Generation
	var change Change
	for i := range 32 {
		change.PutTokens = append(change.PutTokens, token("a", fmt.Sprint("r", i), i))
		change.Audit = append(change.Audit, AuditEntry{uint64(i + 1), []byte(`{}`)})
	}
	change.Contact = &ContactRecord{LastContact: time.Unix(1, 0).UTC()}
	commit(t, c, change)
	if got := c.Health().Generation - before; got != 1 {
		t.Fatalf("%d commits, want 1", got)
	}
}

func TestNewcomersBeyondTheLimitAreRefusedAndNothingThatWorksGivesWay(t *testing.T) {
	c := openCache(t, t.TempDir(), Options{})
	small := func(i int) TokenRecord {
		return TokenRecord{ClientID: "c", Resource: fmt.Sprintf("%06d", i), AccessToken: "t"}
	}
	for i := range maxTokens + 1 {
		c.Stage(Change{PutTokens: []TokenRecord{small(i)}})
	}
	if got := len(c.Tokens()); got != maxTokens || c.Health().Dropped != 1 {
		t.Fatalf("%d tokens, %d dropped, want %d and 1", got, c.Health().Dropped, maxTokens)
	}
	newer := small(0)
	newer.AccessToken = "newer"
	c.Stage(Change{PutTokens: []TokenRecord{newer}})
	if c.Tokens()[0].AccessToken != "newer" {
		t.Fatal("a known token could not be refreshed in a full cache")
	}
	c.Stage(Change{DropTokens: []TokenKey{{"c", "000001"}}, PutTokens: []TokenRecord{small(maxTokens)}})
	if got := len(c.Tokens()); got != maxTokens {
		t.Fatalf("%d tokens after one gave way, want %d", got, maxTokens)
	}
	must(t, c.Commit(t.Context()))

	big := openCache(t, t.TempDir(), Options{})
	for i := range maxTokenBytes/(32<<10) + 2 {
		huge := small(i)
		huge.AccessToken = strings.Repeat("x", 32<<10)
		big.Stage(Change{PutTokens: []TokenRecord{huge}})
	}
	if big.bytes > maxTokenBytes || big.Health().Dropped == 0 {
		t.Fatalf("%d bytes held, %d dropped", big.bytes, big.Health().Dropped)
	}
	must(t, big.Commit(t.Context()))
}

func audit(t testing.TB, c *Cache, from uint64) (seqs []uint64) {
	t.Helper()
	must(t, c.Audit(from, func(e AuditEntry) error {
		if string(e.JSON) != entry(e.Seq) {
			return fmt.Errorf("entry %d is %.60s", e.Seq, e.JSON)
		}
		seqs = append(seqs, e.Seq)
		return nil
	}))
	return seqs
}

func entry(seq uint64) string { return fmt.Sprintf(`{"seq":%d,"pad":"%0*d"}`, seq, int(seq%50)*9, seq) }

func entries(from, n uint64) (list []AuditEntry) {
	for i := range n {
		list = append(list, AuditEntry{from + i, []byte(entry(from + i))})
	}
	return list
}

func TestAuditRingHoldsAsManyAsItIsTold(t *testing.T) {
	dir := t.TempDir()
	for _, most := range []int{100, 150, 120} { // a smaller number takes effect with the next record
		c := value(OpenCache(t.Context(), dir, Options{AuditRecords: most}))(t)
		commit(t, c, Change{Audit: entries(c.LastAudit()+1, 170)})
		if got := audit(t, c, 0); len(got) != most || got[most-1] != c.LastAudit() {
			t.Errorf("%d of at most %d", len(got), most)
		}
		commit(t, c, Change{Audit: entries(c.LastAudit()+1, 1)})
		if got := audit(t, c, 0); len(got) != most || got[most-1] != c.LastAudit() {
			t.Errorf("after one more %d of at most %d", len(got), most)
		}
		must(t, c.Close())
	}
}

func TestAuditRingKeepsTheNewest(t *testing.T) {
	dir := t.TempDir()
	c := value(OpenCache(t.Context(), dir, Options{}))(t)
	next := uint64(1)
	for next <= 3*ringEntries {
		commit(t, c, Change{Audit: entries(next, 97)})
		next += 97
	}
	c.Stage(Change{Audit: entries(next, 3)}) // not on the disk yet
	check := func(last uint64, n int) {
		t.Helper()
		got := audit(t, c, 0)
		if len(got) != n || got[len(got)-1] != last || c.LastAudit() != last {
			t.Fatalf("%d entries up to %d (last %d), want %d up to %d", len(got), got[len(got)-1], c.LastAudit(), n, last)
		}
		for i := 1; i < len(got); i++ {
			if got[i] != got[i-1]+1 {
				t.Fatalf("after %d comes %d", got[i-1], got[i])
			}
		}
	}
	check(next+2, ringEntries+3)
	must(t, c.Commit(t.Context()))
	check(next+2, ringEntries)
	must(t, c.Close())
	c = openCache(t, dir, Options{})
	check(next+2, ringEntries)
	if got := audit(t, c, next); len(got) != 3 {
		t.Fatalf("from %d on: %v", next, got)
	}
	stop := errors.New("stop")
	wantError(t, c.Audit(0, func(AuditEntry) error { return stop }), stop)
}

func TestAuditRingIsBoundedInBytes(t *testing.T) {
	c := openCache(t, t.TempDir(), Options{})
	big := []byte(`"` + strings.Repeat("x", 100<<10) + `"`)
	for seq := range uint64(30) {
		commit(t, c, Change{Audit: []AuditEntry{{seq + 1, big}}})
	}
	var seqs []uint64
	must(t, c.Audit(0, func(e AuditEntry) error { seqs = append(seqs, e.Seq); return nil }))
	if len(seqs) != ringBytes/len(big) || seqs[len(seqs)-1] != 30 {
		t.Fatalf("entries %v, want the last %d of 30", seqs, ringBytes/len(big))
	}
}

func TestCallerMayUseTheCacheWhileItReadsTheAudit(t *testing.T) {
	c := openCache(t, t.TempDir(), Options{})
	commit(t, c, Change{Audit: entries(1, 3)})
	must(t, c.Audit(0, func(AuditEntry) error {
		c.Stage(Change{PutTokens: []TokenRecord{token("a", "r", 1)}})
		return c.Commit(t.Context())
	}))
}

func TestFullFileIsCompactedNotGivenUp(t *testing.T) {
	dir := scratch(t)
	const limit = 128 << 10
	c := openCache(t, dir, Options{MaxSize: limit})
	r := rand.New(rand.NewPCG(1, 2))
	compactions, file := 0, value(os.Stat(filepath.Join(dir, cacheName)))(t)
	for i := range 300 {
		big := token("a", fmt.Sprint("r", r.IntN(9)), i)
		big.AccessToken = strings.Repeat("y", 1+r.IntN(10<<10))
		commit(t, c, Change{PutTokens: []TokenRecord{big}})
		if h := c.Health(); h.Bytes > limit || h.Mode != ModeDisk {
			t.Fatalf("round %d: health %+v", i, h)
		}
		if now := value(os.Stat(filepath.Join(dir, cacheName)))(t); !os.SameFile(file, now) {
			compactions, file = compactions+1, now
		}
	}
	if compactions == 0 {
		t.Fatal("the file was never full")
	}
	t.Logf("%d compactions in 300 rounds", compactions)
	want := c.Tokens()
	must(t, c.Close())
	wantTokens(t, openCache(t, dir, Options{}), want...)
}

func TestSingleBadTokenIsLeftOutAndTheOthersStay(t *testing.T) {
	dir := t.TempDir()
	c := value(OpenCache(t.Context(), dir, Options{}))(t)
	commit(t, c, Change{PutTokens: []TokenRecord{token("a", "bad", 1), token("a", "good", 1)}, Audit: entries(1, 5)})
	must(t, c.Close())
	rewriteRaw(t, filepath.Join(dir, cacheName), func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(tokenBucket))
		key := []byte("a\x00bad")
		v := append([]byte{}, b.Get(key)...)
		v[len(v)/2] ^= 1
		return b.Put(key, v)
	})
	c = value(OpenCache(t.Context(), dir, Options{}))(t)
	wantTokens(t, c, token("a", "good", 1))
	if h := c.Health(); h.Dropped != 1 || h.Mode != ModeDisk {
		t.Fatalf("health %+v", h)
	}
	commit(t, c, Change{PutTokens: []TokenRecord{token("a", "bad", 2)}})
	must(t, c.Close())
	c = openCache(t, dir, Options{})
	wantTokens(t, c, token("a", "bad", 2), token("a", "good", 1))
	if c.Health().Dropped != 0 || len(audit(t, c, 0)) != 5 {
		t.Fatalf("health %+v", c.Health())
	}
}

func TestOneCorruptCacheIsKept(t *testing.T) {
	dir := t.TempDir()
	for i := range 4 {
		must(t, os.WriteFile(filepath.Join(dir, cacheName), fmt.Append(nil, "bad ", i), 0o600))
		must(t, value(OpenCache(t.Context(), dir, Options{}))(t).Close())
	}
	kept := asides(dir, cacheName+".corrupt-")
	if len(kept) != 1 || string(value(os.ReadFile(kept[0]))(t)) != "bad 3" {
		t.Fatalf("kept %v", kept)
	}
}

func TestCacheNeverMakesAKeyWhereAnIdentityLostIts(t *testing.T) {
	dir := t.TempDir()
	enrolled(t, dir)
	must(t, os.Remove(filepath.Join(dir, keyName)))
	c := openCache(t, dir, Options{})
	if h := c.Health(); h.Mode != ModeMemory || !missing(filepath.Join(dir, keyName)) {
		t.Fatalf("health %+v", h)
	}
	c.Stage(Change{PutTokens: []TokenRecord{token("a", "r", 1)}})
	wantError(t, c.Commit(t.Context()), ErrNotFound)
	wantTokens(t, c, token("a", "r", 1))
}

func TestWrittenBytesAreCountedByDay(t *testing.T) {
	now := time.Date(2026, 11, 22, 23, 0, 0, 0, time.UTC)
	c := openCache(t, t.TempDir(), Options{Now: func() time.Time { return now }})
	commit(t, c, Change{PutTokens: []TokenRecord{token("a", "r", 1)}})
	first := c.Health()
	if first.WrittenToday == 0 || first.WrittenToday != first.Written {
		t.Fatalf("health %+v", first)
	}
	now = now.Add(2 * time.Hour)
	if got := c.Health().WrittenToday; got != 0 {
		t.Fatalf("%d bytes at the beginning of a day", got)
	}
	commit(t, c, Change{PutTokens: []TokenRecord{token("a", "r", 2)}})
	if h := c.Health(); h.WrittenToday != h.Written-first.Written {
		t.Fatalf("health %+v", h)
	}
}

// The cache against a map: what is staged shows at once, what is committed
// survives reopening, deletion of the file and damage to single values of it.
func TestCacheBehavesLikeAMap(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		dir := scratch(t)
		c := value(OpenCache(context.Background(), dir, Options{}))(t)
		memory, disk := map[TokenKey]TokenRecord{}, map[TokenKey]TokenRecord{}
		seq, stored, age := uint64(0), uint64(0), 0
		clone := func(m map[TokenKey]TokenRecord) map[TokenKey]TokenRecord {
			out := map[TokenKey]TokenRecord{}
			for k, v := range m {
				out[k] = v
			}
			return out
		}
		key := rapid.Custom(func(r *rapid.T) TokenKey {
			return TokenKey{rapid.SampledFrom([]string{"a", "b"}).Draw(r, "client"), rapid.SampledFrom([]string{"r", "s", "t", "ü\x00"}).Draw(r, "resource")}
		})
		r.Repeat(map[string]func(*rapid.T){
			"put": func(r *rapid.T) {
				k := key.Draw(r, "key")
				age++
				memory[k] = token(k.ClientID, k.Resource, age)
				c.Stage(Change{PutTokens: []TokenRecord{memory[k]}})
			},
			"drop": func(r *rapid.T) {
				k := key.Draw(r, "key")
				delete(memory, k)
				c.Stage(Change{DropTokens: []TokenKey{k}})
			},
			"audit": func(*rapid.T) {
				seq++
				c.Stage(Change{Audit: entries(seq, 1)})
			},
			"commit": func(r *rapid.T) {
				if err := c.Commit(context.Background()); err != nil {
					r.Fatal(err)
				}
				disk, stored = clone(memory), seq
			},
			"restart": func(r *rapid.T) {
				if err := c.Close(); err != nil {
					r.Fatal(err)
				}
				c = value(OpenCache(context.Background(), dir, Options{}))(t)
				memory, seq = clone(disk), stored
			},
			"delete file": func(r *rapid.T) {
				if err := os.Remove(filepath.Join(dir, cacheName)); err != nil {
					r.Fatal(err)
				}
				if err := c.Check(context.Background()); err != nil {
					r.Fatal(err)
				}
				disk, stored = clone(memory), seq
			},
			"drop all": func(r *rapid.T) {
				if rapid.IntRange(0, 9).Draw(r, "rarely") > 0 {
					return
				}
				if err := c.Drop(); err != nil {
					r.Fatal(err)
				}
				memory, disk, seq, stored = map[TokenKey]TokenRecord{}, map[TokenKey]TokenRecord{}, 0, 0
			},
			"": func(r *rapid.T) {
				got := map[TokenKey]TokenRecord{}
				for _, rec := range c.Tokens() {
					got[rec.key()] = rec
				}
				if !reflect.DeepEqual(got, memory) {
					r.Fatalf("tokens %.200v, want %.200v", got, memory)
				}
				if n := len(audit(t, c, 0)); n != int(seq) || c.LastAudit() != seq {
					r.Fatalf("%d audit entries up to %d, want %d", n, c.LastAudit(), seq)
				}
			},
		})
		must(t, c.Close())
	})
}

func TestStagedAuditIsBoundedWhileNothingCanBeWritten(t *testing.T) {
	c := openCache(t, t.TempDir(), Options{})
	for seq := uint64(1); seq <= 5*ringEntries; seq += 10 {
		c.Stage(Change{Audit: entries(seq, 10)})
	}
	if n := len(c.staged.audit); n != ringEntries || c.Health().Dropped != 4*ringEntries {
		t.Fatalf("%d entries are held, %d dropped", n, c.Health().Dropped)
	}
	if got := audit(t, c, 0); len(got) != ringEntries || got[len(got)-1] != 5*ringEntries {
		t.Fatalf("%d entries up to %d", len(got), got[len(got)-1])
	}
}

// A commit that was taken for lost, and was not, is written again.
func TestAuditEntryWrittenTwiceCountsOnce(t *testing.T) {
	c := openCache(t, t.TempDir(), Options{})
	commit(t, c, Change{Audit: entries(1, 3)})
	commit(t, c, Change{Audit: entries(2, 3)})
	if got := audit(t, c, 0); len(got) != 4 || c.ring.count != 4 {
		t.Fatalf("entries %v, counted %d", got, c.ring.count)
	}
}

// A file that was made anew without its audit entries has room for as many again.
func TestRingIsCountedAnewInANewFile(t *testing.T) {
	dir := scratch(t)
	c := openCache(t, dir, Options{})
	commit(t, c, Change{Audit: entries(1, ringEntries)})
	lose(c.db)
	must(t, os.WriteFile(filepath.Join(dir, cacheName), []byte("garbage"), 0o600))
	for i := range uint64(5) {
		commit(t, c, Change{Audit: entries(ringEntries+1+10*i, 10)})
	}
	if got := audit(t, c, 0); len(got) != 50 || c.ring.count != 50 {
		t.Fatalf("%d entries, counted %d, want 50", len(got), c.ring.count)
	}
}
