package store

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

var failEvery = flag.Int("store.every", share, "TestST10…: fail every n-th call, not each")

// linuxRoles are the other processes of the tests that need Linux.
func linuxRoles() map[string]func([]string) error {
	return map[string]func([]string) error{"faulty": faultyRole, "tmpfs": tmpfsRole, "holder": holderRole, "starved": starvedRole, "ghost": ghostRole}
}

const faultyOperations = 14 // a life, its end, and the next beginning

// faultyRole does operations while one system call of it fails, as strace
// arranges. An operation that fails must change nothing, leave everything
// readable, and succeed when it is done again.
func faultyRole(args []string) error {
	runtime.LockOSThread() // strace counts turns by thread
	ctx, dir := context.Background(), args[0]
	all := worlds(faultyOperations + 1)
	var f *IdentityFile
	var c *Cache
	var failed []string
	err := again(&failed, "open", func() (err error) {
		if f == nil {
			if f, err = OpenIdentity(ctx, dir, Options{}); err != nil {
				return err
			}
		}
		c, err = OpenCache(ctx, dir, Options{})
		return err
	})
	if err != nil {
		return err
	}
	for n := 1; n <= faultyOperations; n++ {
		err := again(&failed, fmt.Sprint(n), func() error {
			err := do(n, f, c)
			if err != nil {
				if f.Damaged() != nil { // it could not be opened at the start
					if err := f.Check(ctx); err != nil {
						return errors.Join(errHopeless, err)
					}
				}
				possible := all[:n]
				if n%lifetime == opDestroy {
					possible = all[:n+1] // what was announced is not taken back
				}
				if _, wrong := judgeWorldIdentity(f, n-1, possible); wrong != nil {
					return errors.Join(errHopeless, wrong)
				}
				if len(c.Tokens()) == 0 && n > 2 && n < opDestroy {
					return errors.Join(errHopeless, errors.New("the tokens in memory are gone"))
				}
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	err = again(&failed, "check", func() error { return errors.Join(f.Check(ctx), c.Check(ctx)) })
	if h := c.Health(); h.Mode != ModeDisk || h.Problem != "" {
		err = errors.Join(err, fmt.Errorf("not healed: %+v", h))
	}
	if h := f.Health(); h.Mode != ModeDisk || h.Problem != "" {
		err = errors.Join(err, fmt.Errorf("not healed: %+v", h))
	}
	fmt.Println("failed:", strings.Join(failed, " "))
	return errors.Join(err, c.Close(), f.Close())
}

var errHopeless = errors.New("not to be tried again")

// again tries three times; one fault happens once.
func again(failed *[]string, what string, f func() error) error {
	for try := 1; ; try++ {
		err := f()
		if err == nil {
			return nil
		}
		*failed = append(*failed, what)
		if try == 3 || errors.Is(err, errHopeless) {
			return fmt.Errorf("%s, try %d: %w", what, try, err)
		}
	}
}

// ST9, ST10, ST12: each system call that the store makes fails once, at each
// of its turns: no space, an I/O error, no descriptors.
func TestST10_AnyFailedSystemCallLosesNothingAndHeals(t *testing.T) {
	all := worlds(faultyOperations + 1)
	for _, c := range []struct {
		call, fault string
		turns       int
	}{
		{"pwrite64", "ENOSPC", 80},
		{"pwrite64", "EIO", 20},
		{"fdatasync", "EIO", 40},
		{"fsync", "EIO", 45},
		{"ftruncate", "ENOSPC", 12},
		{"renameat", "EIO", 20},
		{"write", "ENOSPC", 8},
		{"openat", "EMFILE", 110},
		{"unlinkat", "EIO", 30},
	} {
		t.Run(c.call+" "+c.fault, func(t *testing.T) {
			hit, failed := 0, 0
			for turn := 1; turn <= c.turns; turn += *failEvery {
				dir := scratch(t)
				out := filepath.Join(t.TempDir(), "trace")
				args := []string{
					"-f", "-o", out, "-e", "signal=none",
					"-e", "trace=openat,close,write,pwrite64,ftruncate,fsync,fdatasync,renameat,unlinkat",
					"-e", fmt.Sprintf("inject=%s:error=%s:when=%d", c.call, c.fault, turn),
				}
				if c.call == "write" { // the run-time system writes too, to wake itself up
					args = append(args, "-P", filepath.Join(dir, keyName+".tmp"), "-P", filepath.Join(dir, markerName+".tmp"))
				}
				cmd := exec.Command("strace", append(args, os.Args[0], dir)...)
				cmd.Env = append(os.Environ(), roleVariable+"=faulty")
				text, err := cmd.CombinedOutput()
				if err != nil {
					t.Fatalf("turn %d: %v\n%.2000s", turn, err, text)
				}
				if !strings.Contains(string(text), "failed: \n") {
					hit++
				}
				if strings.Contains(string(value(os.ReadFile(out))(t)), "(INJECTED)") {
					failed++
				}
				if c.call == "fdatasync" || c.call == "pwrite64" {
					must(t, notWrittenAgain(out))
				}
				if _, err := judge(dir, faultyOperations, all); err != nil && !errors.Is(err, errHadToRecover) {
					t.Fatalf("turn %d: %v", turn, err)
				}
			}
			t.Logf("%d calls failed, %d times a caller saw it", failed, hit)
			if failed == 0 {
				t.Error("no call failed: this proves nothing")
			}
		})
	}
}

var injected = regexp.MustCompile(`(fdatasync|pwrite64)\((\d+).*\(INJECTED\)`)

// notWrittenAgain reads a trace: after a commit's call failed on a descriptor,
// nothing is written or synced through it until it is closed.
func notWrittenAgain(trace string) error {
	text, err := os.ReadFile(trace)
	if err != nil {
		return err
	}
	bad := ""
	for line := range strings.Lines(string(text)) {
		if m := injected.FindStringSubmatch(line); m != nil {
			bad = m[2]
			continue
		}
		if bad == "" {
			continue
		}
		if strings.Contains(line, "close("+bad+")") {
			return nil
		}
		for _, call := range []string{"write(", "pwrite64(", "ftruncate(", "fdatasync("} {
			if strings.Contains(line, " "+call+bad+",") || strings.Contains(line, " "+call+bad+")") {
				return fmt.Errorf("written again: %.200s", line)
			}
		}
	}
	return nil
}

// ST12. A process without a descriptor to spare commits what it has open,
// serves the rest from memory, and heals when there are descriptors again.
func TestST12_NoDescriptorsLeftLosesNothingAndHeals(t *testing.T) {
	dir := stateDir(t)
	if text, err := as(t.Context(), "starved", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	f, c := openIdentity(t, dir, Options{}), openCache(t, dir, Options{})
	sameIdentities(t, f, testIdentity("a", 2), testIdentity("b", 1))
	wantTokens(t, c, token("a", "r", 1), token("b", "r", 1), token("c", "r", 1))
}

func starvedRole(args []string) error {
	ctx, dir := context.Background(), args[0]
	f, err := OpenIdentity(ctx, dir, Options{})
	if err != nil {
		return err
	}
	c, err := OpenCache(ctx, dir, Options{})
	if err != nil {
		return err
	}
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		return err
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: old.Max}); err != nil {
		return err
	}
	c.Stage(Change{PutTokens: []TokenRecord{token("b", "r", 1)}})
	if err := c.Commit(ctx); err != nil {
		return fmt.Errorf("commit needs no new descriptor: %w", err)
	}
	if err := f.Update(func(tx *IdentityTx) error { return tx.PutIdentity(testIdentity("a", 2)) }); err != nil {
		return fmt.Errorf("update: %w", err)
	}
	if h := f.Health(); h.Problem == "" || f.Check(ctx) == nil {
		return fmt.Errorf("the backup copy is behind, and nobody says so: %+v", h)
	}
	if err := os.Remove(filepath.Join(dir, cacheName)); err != nil {
		return err
	}
	c.Stage(Change{PutTokens: []TokenRecord{token("c", "r", 1)}})
	if c.Commit(ctx) == nil || c.Check(ctx) == nil || len(c.Tokens()) != 3 {
		return fmt.Errorf("a deleted cache was written without a descriptor: %+v", c.Health())
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		return err
	}
	return errors.Join(f.Check(ctx), c.Check(ctx), c.Close(), f.Close())
}

// An identity that Update reported as failed must not be there after a restart,
// whether another one was made after it or not.
func TestFailedFirstUpdateLeavesNoGhost(t *testing.T) {
	failures := 0
	for turn := range 24 {
		dir, then := scratch(t), []string{"stop", "retry"}[turn%2]
		cmd := exec.Command("strace", "-f", "-o", os.DevNull, "-e", "signal=none", "-e", "trace=fsync",
			"-e", fmt.Sprintf("inject=fsync:error=EIO:when=%d", 1+turn/2), os.Args[0], dir, then)
		cmd.Env = append(os.Environ(), roleVariable+"=ghost")
		text, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("turn %d: %v\n%s", turn, err, text)
		}
		refused := strings.Contains(string(text), "refused")
		f := value(OpenIdentity(t.Context(), dir, Options{}))(t)
		switch {
		case refused && then == "stop":
			failures++
			if f.Exists() || f.Damaged() != nil {
				t.Errorf("turn %d: a ghost: %v", turn, f.Damaged())
			}
		case refused:
			sameIdentities(t, f, testIdentity("real", 1))
		case then == "stop":
			sameIdentities(t, f, testIdentity("ghost", 1))
		default:
			sameIdentities(t, f, testIdentity("ghost", 1), testIdentity("real", 1))
		}
		must(t, f.Close())
	}
	t.Logf("%d of 12 failed calls made the first Update fail", failures)
	if failures < 3 {
		t.Fatal("too few to prove anything")
	}
}

func ghostRole(args []string) error {
	runtime.LockOSThread()
	f, err := OpenIdentity(context.Background(), args[0], Options{})
	if err != nil {
		return err
	}
	first := f.Update(func(tx *IdentityTx) error {
		return errors.Join(tx.PutDevice(testDevice()), tx.PutIdentity(testIdentity("ghost", 1)))
	})
	if first != nil {
		fmt.Println("refused", first)
	}
	if args[1] == "stop" {
		return f.Close()
	}
	var failed []string // the fault may hit this one, or the first check
	err = again(&failed, "update", func() error {
		return f.Update(func(tx *IdentityTx) error {
			return errors.Join(tx.PutDevice(testDevice()), tx.PutIdentity(testIdentity("real", 1)))
		})
	})
	_ = f.Check(context.Background())
	return errors.Join(err, f.Check(context.Background()), f.Close())
}
