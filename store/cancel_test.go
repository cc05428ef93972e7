package store

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// stopping is what an agent is given that is told to stop while the file of
// that name is being checked: a real child, which the context's end ends.
type stopping struct {
	o   Options
	log bytes.Buffer
	ctx context.Context //nolint:containedctx // it ends in the middle of a check
	hit bool
}

func stopAt(t *testing.T, name string) *stopping {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	s := &stopping{ctx: ctx}
	hang := Child(func(ctx context.Context, path string) *exec.Cmd { return as(ctx, "hang", path) })
	s.o.Log = slog.New(slog.NewTextHandler(&s.log, nil))
	s.o.Verify = func(ctx context.Context, path string) error {
		if filepath.Base(path) != name {
			return VerifyFile(ctx, path, Options{})
		}
		s.hit = true
		cancel()
		return hang(ctx, path)
	}
	return s
}

// saidNothing wants that nothing was called damaged or mended.
func (s *stopping) saidNothing(t *testing.T) {
	t.Helper()
	if !s.hit {
		t.Error("the check was not made at all")
	}
	for line := range strings.Lines(s.log.String()) {
		if strings.Contains(line, "event=store-") || strings.Contains(line, "level=ERROR") {
			t.Errorf("logged: %s", line)
		}
	}
}

func sameFiles(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	if got := contents(t, dir); !maps.Equal(got, want) {
		for name := range want {
			if got[name] != want[name] {
				t.Errorf("%s is not what it was", name)
			}
		}
		for name := range got {
			if _, was := want[name]; !was {
				t.Errorf("%s was made", name)
			}
		}
	}
}

func TestCheckOfTheBackupCopyThatIsCutShortIsNoVerdict(t *testing.T) {
	dir := stateDir(t)
	before := contents(t, dir)
	s := stopAt(t, identityName+".bak")
	f := openIdentity(t, dir, s.o)
	wantError(t, f.Check(s.ctx), context.Canceled)
	s.saidNothing(t)
	sameFiles(t, dir, before)
	if h := f.Health(); h.Problem != "" || h.Recovered != "" || h.Written != 0 {
		t.Errorf("health %+v", h)
	}
	wantError(t, f.Check(s.ctx), context.Canceled) // nor is one that comes later
	sameIdentities(t, f, testIdentity("a", 1), testIdentity("b", 1))
}

// A check may also be ended by the signal that every process of a unit gets,
// before our own context has ended.
func TestCheckOfTheBackupCopyThatWasEndedFromOutsideIsRepeated(t *testing.T) {
	dir := stateDir(t)
	before := contents(t, dir)
	ended := false
	f := openIdentity(t, dir, Options{Verify: func(ctx context.Context, path string) error {
		if !strings.HasSuffix(path, ".bak") || ended {
			return VerifyFile(ctx, path, Options{})
		}
		ended = true
		return Child(func(ctx context.Context, _ string) *exec.Cmd {
			return exec.CommandContext(ctx, "/bin/sh", "-c", "kill -TERM $$")
		})(ctx, path)
	}})
	wantError(t, f.Check(t.Context()), ErrUnchecked)
	sameFiles(t, dir, before)
	must(t, f.Check(t.Context()))
	sameFiles(t, dir, before)
}

func TestIdentityThatWasNotCheckedToTheEndIsNotCalledDamaged(t *testing.T) {
	whole := contents(t, stateDir(t))
	spoilt := maps.Clone(whole)
	spoilt[identityName] = strings.Repeat("x", len(whole[identityName]))
	newer := lay(t, whole)
	f := value(OpenIdentity(t.Context(), newer, Options{}))(t)
	must(t, f.Update(func(tx *IdentityTx) error { return tx.PutIdentity(testIdentity("a", 2)) }))
	must(t, f.Close())
	back := contents(t, newer)
	back[identityName] = whole[identityName]
	for _, c := range []struct {
		name, cut string
		files     map[string]string
		age       int // of identity a, as the next start must find it
	}{
		{"database", identityName, whole, 1},
		{"backup copy of a damaged database", identityName + ".bak", spoilt, 1},
		{"backup copy of an older database", identityName + ".bak", back, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := lay(t, c.files)
			s := stopAt(t, c.cut)
			f, err := OpenIdentity(s.ctx, dir, s.o)
			wantError(t, err, context.Canceled)
			if f != nil {
				t.Fatal("it was opened all the same")
			}
			s.saidNothing(t)
			sameFiles(t, dir, c.files)
			sameIdentities(t, openIdentity(t, dir, Options{}), testIdentity("a", c.age), testIdentity("b", 1))
		})
	}
}

func TestCacheThatWasNotCheckedToTheEndIsKept(t *testing.T) {
	dir := stateDir(t)
	before := contents(t, dir)
	s := stopAt(t, cacheName)
	_, err := OpenCache(s.ctx, dir, s.o)
	wantError(t, err, context.Canceled)
	s.saidNothing(t)
	sameFiles(t, dir, before)
	wantTokens(t, openCache(t, dir, Options{}), token("a", "r", 1))
}

// Once a file was put aside, the new one is made to the end.
func TestRecoveryThatHasBegunIsFinishedThoughTheAgentStops(t *testing.T) {
	for _, name := range []string{identityName, cacheName} {
		t.Run(name, func(t *testing.T) {
			dir := stateDir(t)
			must(t, os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte("x"), 3*pageSize), 0o600))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			o := Options{Verify: func(ctx context.Context, path string) error {
				if strings.HasSuffix(path, ".new") {
					cancel()
				}
				if err := ctx.Err(); err != nil {
					return fmt.Errorf("check of %s: %w", path, err)
				}
				return VerifyFile(ctx, path, Options{})
			}}
			if name == identityName {
				f := value(OpenIdentity(ctx, dir, o))(t)
				sameIdentities(t, f, testIdentity("a", 1), testIdentity("b", 1))
				must(t, f.Close())
			} else {
				must(t, value(OpenCache(ctx, dir, o))(t).Close())
			}
			must(t, VerifyFile(t.Context(), filepath.Join(dir, name), Options{}))
		})
	}
}

func TestRunningStoreDoesNothingForAContextThatHasEnded(t *testing.T) {
	dir := stateDir(t)
	f, c := openIdentity(t, dir, Options{}), openCache(t, dir, Options{})
	d := openDB(t, filepath.Join(scratch(t), "authority.db"), Options{})
	for _, path := range []string{f.db.path, c.db.path, d.path} {
		must(t, os.Remove(path))
	}
	before := contents(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, check := range []func(context.Context) error{f.Check, c.Check, d.Check} {
		wantError(t, check(ctx), context.Canceled)
	}
	sameFiles(t, dir, before)
	for _, h := range []Health{f.Health(), c.Health(), d.Health()} {
		if h.Problem != "" || h.Recovered != "" {
			t.Errorf("health %+v", h)
		}
	}
	for _, check := range []func(context.Context) error{f.Check, c.Check, d.Check} {
		must(t, check(t.Context()))
	}
}
