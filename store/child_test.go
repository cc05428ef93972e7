package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func TestChildsVerdictIsBelieved(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.db")
	must(t, os.WriteFile(bad, bytes.Repeat([]byte{1}, 9000), 0o600))
	empty := filepath.Join(dir, "empty.db")
	must(t, os.WriteFile(empty, nil, 0o600))
	link := filepath.Join(dir, "link.db")
	must(t, os.Symlink(bad, link))
	must(t, childVerify(t.Context(), grown(t)))
	wantError(t, childVerify(t.Context(), bad), ErrForeign)
	wantError(t, childVerify(t.Context(), empty), ErrDamaged)
	wantError(t, childVerify(t.Context(), link), ErrUnsafe)
	err := childVerify(t.Context(), filepath.Join(dir, "none.db"))
	if err == nil || errors.Is(err, ErrDamaged) {
		t.Fatalf("a file that is not there is not damaged: %v", err)
	}
}

func TestChildThatCrashesOrSaysNothingMeansDamage(t *testing.T) {
	for _, role := range []string{"crash", "silent"} {
		verify := Child(func(ctx context.Context, path string) *exec.Cmd { return as(ctx, role, path) })
		if err := verify(t.Context(), "x"); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v, want ErrDamaged", role, err)
		}
	}
}

// TestChildThatDiesOnceMeansNothing: a machine without a thread to spare ends a
// child as a damaged file does; the file, it ends each time.
func TestChildThatDiesOnceMeansNothing(t *testing.T) {
	for died := range deaths + 1 {
		asked := 0
		verify := Child(func(ctx context.Context, _ string) *exec.Cmd {
			asked++
			if asked <= died {
				return exec.CommandContext(ctx, "/bin/sh", "-c", "echo ok; exit 2")
			}
			return exec.CommandContext(ctx, "/bin/sh", "-c", "echo ok")
		})
		err := verify(t.Context(), "x")
		if died < deaths && err != nil || died == deaths && !errors.Is(err, ErrDamaged) {
			t.Errorf("%d of %d died: %v", died, deaths, err)
		}
	}
}

func TestChildThatWasNotDoneOrWasEndedFromOutsideMeansNothing(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	verify := Child(func(ctx context.Context, path string) *exec.Cmd { return as(ctx, "hang", path) })
	err := verify(ctx, "x")
	wantError(t, err, context.DeadlineExceeded)
	wantError(t, err, ErrUnchecked)
	if errors.Is(err, ErrDamaged) {
		t.Errorf("%v is a verdict", err)
	}
	var heard bytes.Buffer // the child heard the same signal, and could still say so
	must(t, WriteVerdict(&heard, fmt.Errorf("page 7: %w", context.Canceled)))
	said := Child(func(ctx context.Context, _ string) *exec.Cmd {
		return exec.CommandContext(ctx, "/bin/sh", "-c", `printf '%s' "$0"; exit 1`, heard.String())
	})
	wantError(t, said(t.Context(), "x"), ErrUnchecked)
	for _, signal := range []string{"TERM", "KILL", "INT"} {
		verify := Child(func(ctx context.Context, _ string) *exec.Cmd {
			return exec.CommandContext(ctx, "/bin/sh", "-c", "kill -"+signal+" $$")
		})
		wantError(t, verify(t.Context(), "x"), ErrUnchecked)
	}
	for _, script := range []string{"echo ok; exit 1", "echo 'damaged: page 7'", "echo nonsense"} {
		verify := Child(func(ctx context.Context, _ string) *exec.Cmd {
			return exec.CommandContext(ctx, "/bin/sh", "-c", script)
		})
		if err := verify(t.Context(), "x"); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v, want ErrDamaged", script, err)
		}
	}
	segv := Child(func(ctx context.Context, _ string) *exec.Cmd {
		return exec.CommandContext(ctx, "/bin/sh", "-c", "kill -SEGV $$")
	})
	wantError(t, segv(t.Context(), "x"), ErrDamaged)
}

func TestChildThatCannotBeStartedSaysNothingAboutTheFile(t *testing.T) {
	verify := Child(func(ctx context.Context, path string) *exec.Cmd {
		return exec.CommandContext(ctx, "/does/not/exist", path)
	})
	if err := verify(t.Context(), "x"); err == nil || errors.Is(err, ErrDamaged) {
		t.Fatalf("error %v", err)
	}
}

func TestEveryVerdictComesBackAsItsError(t *testing.T) {
	for _, want := range []error{ErrDamaged, ErrForeign, ErrNewer, ErrLocked, ErrUnsafe} {
		var b bytes.Buffer
		must(t, WriteVerdict(&b, fmt.Errorf("page 7: it\nsays: %w", want)))
		verify := Child(func(ctx context.Context, _ string) *exec.Cmd {
			return exec.CommandContext(ctx, "/bin/sh", "-c", `printf '%s' "$0"; exit 1`, b.String())
		})
		if err := verify(t.Context(), "x"); !errors.Is(err, want) {
			t.Errorf("%v came back as %v", want, err)
		} else if text := "page 7: it says: " + want.Error(); err.Error() != text {
			t.Errorf("it says %q, want %q", err, text)
		}
	}
}
