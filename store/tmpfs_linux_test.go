package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
)

// inTmpfs runs a scenario in a process of its own, with a small file system of
// its own. It needs the right to mount.
func inTmpfs(t *testing.T, scenario, options string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not run: mounting a small tmpfs needs root")
	}
	cmd := as(t.Context(), "tmpfs", t.TempDir(), scenario, options)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", scenario, err, text)
	}
	t.Logf("%s", text)
}

func tmpfsRole(args []string) error {
	dir := args[0]
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, args[2]); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	scenarios := map[string]func(string) error{"full": fullDisk, "readonly": readOnlyDisk, "startfull": startOnFullDisk, "startreadonly": startReadOnly}
	return scenarios[args[1]](dir)
}

// ST9. For every amount of free space from none to plenty: what could be
// written is there, what could not is in memory, and both are on the disk as
// soon as there is space.
func TestST9_FullDiskLosesNothingAndHealsInOneRound(t *testing.T) { inTmpfs(t, "full", "size=2m") }

// ST11.
func TestST11_ReadOnlyRemountIsServedFromMemoryAndHeals(t *testing.T) {
	inTmpfs(t, "readonly", "size=4m")
}

func TestStartOnAFullDisk(t *testing.T) { inTmpfs(t, "startfull", "size=256k") }

func TestStartOnAReadOnlyDisk(t *testing.T) { inTmpfs(t, "startreadonly", "size=1m") }

func fullDisk(dir string) error {
	ctx := context.Background()
	f, err := OpenIdentity(ctx, dir, Options{})
	if err != nil {
		return err
	}
	c, err := OpenCache(ctx, dir, Options{})
	if err != nil {
		return err
	}
	if err := f.Update(func(tx *IdentityTx) error {
		return errors.Join(tx.PutDevice(testDevice()), tx.PutIdentity(testIdentity("a", 1)))
	}); err != nil {
		return err
	}
	failures := 0
	for step := range 48 {
		age := step + 2
		if err := fill2(dir, int64(step%24)*4096); err != nil {
			return err
		}
		c.Stage(Change{PutTokens: []TokenRecord{token("a", fmt.Sprint("r", step), age)}, Audit: entries(uint64(age), 1)})
		cacheErr := c.Commit(ctx)
		identityErr := f.Update(func(tx *IdentityTx) error { return tx.PutIdentity(testIdentity("a", age)) })
		if cacheErr != nil || identityErr != nil {
			failures++
		}
		want := testIdentity("a", age)
		if identityErr != nil {
			want = testIdentity("a", age-1)
		}
		if err := holds(f, c, want, token("a", fmt.Sprint("r", step), age)); err != nil {
			return fmt.Errorf("%d bytes free: %w", step%24*4096, err)
		}
		if cacheErr != nil && c.Health().Mode != ModeMemory && c.Health().Problem == "" {
			return fmt.Errorf("%d bytes free: cache %v, health %+v", step%24*4096, cacheErr, c.Health()) //nolint:errorlint // both are told, neither is the cause
		}
		for _, h := range []Health{c.Health(), f.Health()} {
			if strings.Contains(h.Problem, "no space left") && h.Fix != "df -h "+dir+"   # and make room" {
				return fmt.Errorf("no cure: %+v", h)
			}
		}
		if err := os.Remove(filepath.Join(dir, "filler")); err != nil {
			return err
		}
		if err := errors.Join(c.Check(ctx), f.Check(ctx), c.Commit(ctx)); err != nil {
			return fmt.Errorf("%d bytes were free, now there is space: %w", step%24*4096, err)
		}
		if err := f.Update(func(tx *IdentityTx) error { return tx.PutIdentity(testIdentity("a", age)) }); err != nil {
			return err
		}
		if f, c, err = reopened(f, c, dir); err != nil {
			return err
		}
		if err := holds(f, c, testIdentity("a", age), token("a", fmt.Sprint("r", step), age)); err != nil {
			return fmt.Errorf("%d bytes were free, after reopening: %w", step%24*4096, err)
		}
		if got := c.LastAudit(); got != uint64(age) {
			return fmt.Errorf("last audit %d, want %d", got, age)
		}
	}
	fmt.Printf("%d of 48 amounts of free space made something fail; nothing was lost\n", failures)
	if failures == 0 {
		return errors.New("the disk was never full: this proves nothing")
	}
	return errors.Join(c.Close(), f.Close())
}

// fill2 leaves the given number of bytes free.
func fill2(dir string, free int64) error {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return err
	}
	take := int64(s.Bavail)*int64(s.Bsize) - free //nolint:unconvert // 32 bits on some machines
	return os.WriteFile(filepath.Join(dir, "filler"), make([]byte, max(take, 0)), 0o600)
}

func holds(f *IdentityFile, c *Cache, id IdentityRecord, want TokenRecord) error {
	list, err := f.Identities()
	if err != nil || len(list) != 1 || !reflect.DeepEqual(list[0], id) {
		return fmt.Errorf("identities %.100v (%w), want %.100v", list, err, id)
	}
	for _, rec := range c.Tokens() {
		if reflect.DeepEqual(rec, want) {
			return nil
		}
	}
	return fmt.Errorf("token %.60v is not among %d; health %+v", want, len(c.Tokens()), c.Health())
}

func reopened(f *IdentityFile, c *Cache, dir string) (*IdentityFile, *Cache, error) {
	err := errors.Join(c.Close(), f.Close())
	f, err1 := OpenIdentity(context.Background(), dir, Options{})
	c, err2 := OpenCache(context.Background(), dir, Options{})
	return f, c, errors.Join(err, err1, err2)
}

// remount makes the scenario's file system read-only, or writable again. A
// tmpfs refuses the first while a file is open for writing; what a real one
// does after an error of the disk is the same seen from the files: EROFS.
func remount(dir string, flags uintptr) error {
	return syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_BIND|flags, "")
}

func readOnlyDisk(dir string) error {
	ctx := context.Background()
	if err := syscall.Mount(dir, dir, "", syscall.MS_BIND, ""); err != nil {
		return err
	}
	if err := prepared(dir); err != nil {
		return err
	}
	if err := remount(dir, syscall.MS_RDONLY); err != nil {
		return fmt.Errorf("remount read-only: %w", err)
	}
	f, err := OpenIdentity(ctx, dir, Options{})
	if err != nil {
		return err
	}
	c, err := OpenCache(ctx, dir, Options{})
	if err != nil {
		return err
	}
	if err := holds(f, c, testIdentity("a", 1), token("a", "r", 1)); err != nil {
		return err
	}
	for _, h := range []Health{c.Health(), {Mode: ModeMemory, Problem: f.Health().Problem, Fix: f.Health().Fix}} {
		if h.Mode != ModeMemory || !strings.Contains(h.Problem, "read-only file system") || !strings.HasPrefix(h.Fix, "findmnt -T "+dir) {
			return fmt.Errorf("health %+v", h)
		}
	}
	c.Stage(Change{PutTokens: []TokenRecord{token("a", "r", 2)}})
	if err := c.Commit(ctx); !errors.Is(err, ErrReadOnly) {
		return fmt.Errorf("cache commit: %w", err)
	}
	update := func(tx *IdentityTx) error { return tx.PutIdentity(testIdentity("a", 2)) }
	if err := f.Update(update); !errors.Is(err, ErrReadOnly) {
		return fmt.Errorf("update: %w", err)
	}
	if err := holds(f, c, testIdentity("a", 1), token("a", "r", 2)); err != nil {
		return err
	}
	if err := remount(dir, 0); err != nil {
		return err
	}
	if err := errors.Join(f.Check(ctx), c.Check(ctx), f.Update(update)); err != nil {
		return fmt.Errorf("writable again: %w", err)
	}
	if f, c, err = reopened(f, c, dir); err != nil {
		return err
	}
	fmt.Println("served while read-only, written when it was writable again")
	return errors.Join(holds(f, c, testIdentity("a", 2), token("a", "r", 2)), c.Close(), f.Close())
}

// prepared makes an identity and a cache with one token.
func prepared(dir string) error {
	ctx := context.Background()
	f, err := OpenIdentity(ctx, dir, Options{})
	if err != nil {
		return err
	}
	c, err := OpenCache(ctx, dir, Options{})
	if err != nil {
		return err
	}
	c.Stage(Change{PutTokens: []TokenRecord{token("a", "r", 1)}})
	return errors.Join(
		f.Update(func(tx *IdentityTx) error {
			return errors.Join(tx.PutDevice(testDevice()), tx.PutIdentity(testIdentity("a", 1)))
		}),
		c.Commit(ctx), c.Close(), f.Close())
}

// startOnFullDisk: no identity yet, and no room for anything.
func startOnFullDisk(dir string) error {
	ctx := context.Background()
	if err := fill2(dir, 0); err != nil {
		return err
	}
	f, err := OpenIdentity(ctx, dir, Options{})
	if err != nil {
		return err
	}
	c, err := OpenCache(ctx, dir, Options{})
	if err != nil {
		return err
	}
	c.Stage(Change{PutTokens: []TokenRecord{token("a", "r", 1)}})
	update := func(tx *IdentityTx) error { return tx.PutIdentity(testIdentity("a", 1)) }
	if err := f.Update(update); err == nil || f.Exists() {
		return fmt.Errorf("an identity was made on a full disk: %w", err)
	}
	if err := c.Commit(ctx); err == nil {
		return errors.New("a commit on a full disk")
	}
	if err := os.Remove(filepath.Join(dir, "filler")); err != nil {
		return err
	}
	if err := errors.Join(f.Update(update), c.Check(ctx)); err != nil {
		return err
	}
	for _, name := range []string{".new", ".tmp"} {
		if left, _ := filepath.Glob(filepath.Join(dir, "*"+name)); len(left) > 0 {
			return fmt.Errorf("left behind: %s", strings.Join(left, " "))
		}
	}
	return errors.Join(holds(f, c, testIdentity("a", 1), token("a", "r", 1)), c.Close(), f.Close())
}

// startReadOnly: an image whose state directory was never written.
func startReadOnly(dir string) error {
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		return err
	}
	ctx := context.Background()
	f, err := OpenIdentity(ctx, dir, Options{})
	if err != nil {
		return err
	}
	c, err := OpenCache(ctx, dir, Options{})
	if err != nil {
		return err
	}
	c.Stage(Change{PutTokens: []TokenRecord{token("a", "r", 1)}})
	if c.Commit(ctx) == nil || f.Exists() || f.Damaged() != nil || c.Health().Mode != ModeMemory {
		return fmt.Errorf("identity %v, cache %+v", f.Damaged(), c.Health()) //nolint:errorlint // there may be none
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, ""); err != nil {
		return err
	}
	return errors.Join(c.Check(ctx), c.Close(), f.Close())
}

// holderRole opens the directory's identity and cache, says so, and holds them
// until its standard input ends.
func holderRole(args []string) error {
	f, err := OpenIdentity(context.Background(), args[0], Options{})
	if err != nil {
		return err
	}
	c, err := OpenCache(context.Background(), args[0], Options{})
	if err != nil {
		return err
	}
	fmt.Println("holding")
	_, err = os.Stdin.Read(make([]byte, 1))
	_ = err // EOF is the sign to go
	return errors.Join(c.Close(), f.Close())
}
