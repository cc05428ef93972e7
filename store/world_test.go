package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// world is what the files must hold after a number of operations. Operation n
// is the same whenever it is done, and touches either the identity or the cache.
type world struct {
	device bool
	ids    map[string]IdentityRecord
	tokens map[TokenKey]TokenRecord
	audit  []uint64
}

func newWorld() world {
	return world{ids: map[string]IdentityRecord{}, tokens: map[TokenKey]TokenRecord{}}
}

// worlds gives the world after each of the first n operations.
func worlds(n int) []world {
	all := []world{newWorld()}
	for i := 1; i <= n; i++ {
		all = append(all, all[i-1].step(i))
	}
	return all
}

// What operation n is.
const (
	lifetime  = 11 // operations in the life of an identity
	opDestroy = 10
	opDrop    = 0
)

func (w world) step(n int) world {
	w = world{w.device, maps.Clone(w.ids), maps.Clone(w.tokens), slices.Clone(w.audit)}
	switch {
	case n%lifetime == opDestroy:
		return newWorld()
	case n%lifetime == opDrop:
		return w
	case n%3 == 1:
		w.device = true
		id := worldIdentity(n)
		w.ids[id.ClientID] = id
	default:
		t := worldToken(n)
		w.tokens[t.key()] = t
		if n%5 == 0 {
			delete(w.tokens, worldToken(n-3).key())
		}
		w.audit = append(w.audit, uint64(n))
	}
	return w
}

func worldIdentity(n int) IdentityRecord { return testIdentity(fmt.Sprint("id", n%4), n) }
func worldToken(n int) TokenRecord       { return token("c", fmt.Sprint("r", n%7), n) }

// do performs operation n for real.
func do(n int, f *IdentityFile, c *Cache) error {
	switch {
	case n%lifetime == opDestroy:
		return f.Destroy()
	case n%lifetime == opDrop:
		return c.Drop()
	case n%3 == 1:
		return f.Update(func(tx *IdentityTx) error {
			return errors.Join(tx.PutDevice(testDevice()), tx.PutIdentity(worldIdentity(n)))
		})
	}
	change := Change{PutTokens: []TokenRecord{worldToken(n)}, Audit: []AuditEntry{{uint64(n), []byte(entry(uint64(n)))}}}
	if n%5 == 0 {
		change.DropTokens = []TokenKey{worldToken(n - 3).key()}
	}
	c.Stage(change)
	return c.Commit(context.Background())
}

// writerRole opens the state directory and does operations from..to, printing
// the number of each after it was acknowledged: DIR FROM TO [nosync].
func writerRole(args []string) error {
	from, err1 := strconv.Atoi(args[1])
	to, err2 := strconv.Atoi(args[2])
	o := Options{testOnlyNoSync: len(args) > 3 && args[3] == "nosync"}
	f, err3 := OpenIdentity(context.Background(), args[0], o)
	c, err4 := OpenCache(context.Background(), args[0], o)
	if err := errors.Join(err1, err2, err3, err4, acknowledge(from-1)); err != nil {
		return err
	}
	for n := from; n <= to; n++ {
		if err := do(n, f, c); err != nil {
			return fmt.Errorf("operation %d: %w", n, err)
		}
		if err := acknowledge(n); err != nil {
			return err
		}
	}
	_, err := fmt.Println(writtenWord, f.Health().Written+c.Health().Written)
	return errors.Join(err, c.Close(), f.Close())
}

const writtenWord = "written"

func acknowledge(n int) error {
	_, err := os.Stdout.WriteString(ackWord + strconv.Itoa(n) + "\n")
	return err
}

const ackWord = "acknowledged "

func acked(line string) (int, bool) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(line), ackWord)
	n, err := strconv.Atoi(rest)
	return n, ok && err == nil
}

// errHadToRecover: nothing is lost, but only thanks to the backup copy.
var errHadToRecover = errors.New("had to be recovered")

// judge opens a directory in which the operations up to acked were
// acknowledged, and one more may have been under way. Everything acknowledged
// must be there, and nothing else. It returns how many operations it holds.
func judge(dir string, done int, all []world) (int, error) {
	ctx := context.Background()
	f, err := OpenIdentity(ctx, dir, Options{})
	if err != nil {
		return 0, fmt.Errorf("identity: %w", err)
	}
	n, err := judgeWorldIdentity(f, done, all)
	if why := f.Health().Recovered; err == nil && why != "" {
		err = fmt.Errorf("identity after %d %w: %s", done, errHadToRecover, why)
	}
	if err = errors.Join(err, f.Check(ctx)); err != nil {
		return 0, errors.Join(err, f.Close())
	}
	c, err := OpenCache(ctx, dir, Options{})
	if err != nil {
		return 0, errors.Join(fmt.Errorf("cache: %w", err), f.Close())
	}
	m, err := judgeWorldCache(c, done, all)
	return max(n, m), errors.Join(err, c.Check(ctx), c.Close(), f.Close())
}

func judgeWorldIdentity(f *IdentityFile, done int, all []world) (int, error) {
	if err := f.Damaged(); err != nil {
		return 0, fmt.Errorf("identity after %d: %w", done, err)
	}
	list, err := f.Identities()
	if err != nil {
		return 0, err
	}
	got := map[string]IdentityRecord{}
	for _, id := range list {
		got[id.ClientID] = id
	}
	for n := done; n <= done+1 && n < len(all); n++ {
		if f.Exists() == all[n].device && reflect.DeepEqual(got, all[n].ids) {
			return n, nil
		}
	}
	return 0, fmt.Errorf("identity after %d: exists %v, %d records that are neither world's; recovered %q", done, f.Exists(), len(got), f.Health().Recovered)
}

func judgeWorldCache(c *Cache, done int, all []world) (int, error) {
	got := map[TokenKey]TokenRecord{}
	for _, t := range c.Tokens() {
		got[t.key()] = t
	}
	var seqs []uint64
	if err := c.Audit(0, func(e AuditEntry) error {
		seqs = append(seqs, e.Seq)
		if string(e.JSON) != entry(e.Seq) {
			return fmt.Errorf("audit entry %d is wrong", e.Seq)
		}
		return nil
	}); err != nil {
		return 0, err
	}
	h := c.Health()
	for n := done; n <= done+1 && n < len(all); n++ {
		if h.Mode == ModeDisk && reflect.DeepEqual(got, all[n].tokens) && slices.Equal(seqs, all[n].audit) {
			return n, nil
		}
	}
	return 0, fmt.Errorf("cache after %d: %d tokens, %d audit entries that are neither world's; mode %s, problem %q, recovered %q",
		done, len(got), len(seqs), h.Mode, h.Problem, h.Recovered)
}
