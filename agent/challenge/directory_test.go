package challenge

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"postern/platform"
)

func mustDirError(t *testing.T, k *Keeper, problem string) *DirError {
	t.Helper()
	_, err := k.Mint(alice)
	var dir *DirError
	if !errors.As(err, &dir) {
		t.Fatalf("mint: %v, want a *DirError", err)
	}
	if dir.Path == "" || dir.Fix == "" || !strings.Contains(dir.Problem, problem) {
		t.Fatalf("mint: %+v, want path, fix and a problem with %q", dir, problem)
	}
	return dir
}

func TestLeftoversOfACrashAreSweptAtStart(t *testing.T) {
	h := newHost(t)
	for range 3 {
		if err := os.WriteFile(filepath.Join(h.dirs.Tokens, newName()), []byte("x"), 0o440); err != nil {
			t.Fatal(err)
		}
	}
	h.keeper()
	if names := h.names(); len(names) != 0 {
		t.Errorf("left over: %q", names)
	}
}

func TestUnknownFilesAreReportedNeverReadNeverRemoved(t *testing.T) {
	h := newHost(t)
	foreign := newName()
	h.foreign[foreign] = true
	stay := []string{
		"notes.txt", "x.key", strings.ToUpper(newName()), strings.TrimSuffix(newName(), ".key"), newName() + "~",
		"\n" + newName()[1:], foreign,
	}
	for _, name := range stay {
		if err := os.WriteFile(filepath.Join(h.dirs.Tokens, name), nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(h.dirs.Tokens, newName()), 0o700); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	k, err := New(Options{Host: h, Poll: true, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	k.scan()
	k.stop()
	if n := len(h.names()); n != len(stay)+1 {
		t.Errorf("%d files are left of %d", n, len(stay)+1)
	}
	for _, name := range stay {
		if !slices.Contains(k.Health().Unknown, name) {
			t.Errorf("%q is not reported", name)
		}
	}
	if n := strings.Count(log.String(), "unknown files"); n != 1 {
		t.Errorf("reported %d times in the log, want once", n)
	}
	if n := strings.Count(log.String(), "\n"); n != strings.Count(log.String(), "level=") {
		t.Error("a file name forged a log line")
	}
}

func TestUnknownFilesAreCappedInTheReport(t *testing.T) {
	h := newHost(t)
	for range 3 * maxUnknown {
		if err := os.WriteFile(filepath.Join(h.dirs.Tokens, newName()+"x"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(h.keeper().Health().Unknown); n != maxUnknown {
		t.Errorf("%d names, want %d", n, maxUnknown)
	}
}

func TestFileThatSomebodyTookAwayIsNoLongerValid(t *testing.T) {
	h := newHost(t)
	k := h.keeper()
	path, secret := mint(t, k, alice)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	k.scan()
	mustRefuse(t, k, alice, secret, "wrong or used")

	path, secret = mint(t, k, alice)
	h.foreign[filepath.Base(path)] = true // replaced by another account
	k.scan()
	mustRefuse(t, k, alice, secret, "wrong or used")
}

func TestNoChallengeInADirectoryThatDrifted(t *testing.T) {
	h := newHost(t)
	var events []Event
	k, err := New(Options{Host: h, Poll: true, Event: func(e Event) { events = append(events, e) }})
	if err != nil {
		t.Fatal(err)
	}
	_, secret := mint(t, k, alice)
	h.chmod(0o777)
	k.scan()
	dir := mustDirError(t, k, "mode is 0777")
	if dir.Path != h.dirs.Tokens || dir.Fix != "chmod 0750 "+h.dirs.Tokens || !errors.Is(dir, platform.ErrAccess) {
		t.Errorf("got %+v", dir)
	}
	mustRefuse(t, k, alice, secret, "") // whoever could read it may have
	if names := h.names(); len(names) != 0 {
		t.Errorf("files in a directory that others can use: %q", names)
	}
	_ = mustDirError(t, k, "mode is 0777")
	if health := k.Health(); !strings.Contains(health.Problem, "mode is 0777") || health.Fix != dir.Fix {
		t.Errorf("health: %+v", health)
	}
	h.chmod(0o750)
	k.scan()
	mint(t, k, alice)
	if health := k.Health(); health.Problem != "" {
		t.Errorf("health after the cure: %+v", health)
	}
	if len(events) != 1 || events[0].Name != "access-drift" {
		t.Errorf("events %+v, want one access-drift", events)
	}
}

func TestDriftIsFoundByTheRescanAlone(t *testing.T) {
	h := newHost(t)
	k := h.keeper()
	_, secret := mint(t, k, alice)
	h.chmod(0o755)
	k.scan()
	mustRefuse(t, k, alice, secret, "")
	h.chmod(0o750)
	_ = mustDirError(t, k, "0755") // not before the rescan has seen it right
}

func TestOS4ReplacedDirectoryThatFitsIsAdopted(t *testing.T) {
	h := newHost(t)
	var events []Event
	k, err := New(Options{Host: h, Poll: true, Event: func(e Event) { events = append(events, e) }})
	if err != nil {
		t.Fatal(err)
	}
	former, secret := mint(t, k, alice)
	if err := os.Rename(h.dirs.Tokens, h.dirs.Tokens+".old"); err != nil {
		t.Fatal(err)
	}
	h.mkdir()
	_ = mustDirError(t, k, "another directory")
	k.scan()
	mustRefuse(t, k, alice, secret, "")
	path, secret := mint(t, k, alice)
	if path == former {
		t.Error("same name twice")
	}
	mustRedeem(t, k, alice, secret)
	if old, err := os.ReadDir(h.dirs.Tokens + ".old"); err != nil || len(old) != 0 {
		t.Errorf("the former directory still holds %v, %v", old, err)
	}
	if !slices.ContainsFunc(events, func(e Event) bool { return e.Name == "token-dir-replaced" }) {
		t.Errorf("events %+v, want token-dir-replaced", events)
	}
}

func TestOS4ReplacedDirectoryThatDoesNotFitIsRefusedWithTheDifference(t *testing.T) {
	h := newHost(t)
	k := h.keeper()
	if err := os.Rename(h.dirs.Tokens, h.dirs.Tokens+".old"); err != nil {
		t.Fatal(err)
	}
	h.mkdir()
	h.chmod(0o777)
	k.scan()
	mustDirError(t, k, "mode is 0777, want 0750")
	if err := os.RemoveAll(h.dirs.Tokens); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(h.dirs.Tokens+".old", h.dirs.Tokens); err != nil {
		t.Fatal(err)
	}
	k.scan()
	mint(t, k, alice)
}

func TestOS3MissingDirectoryIsMadeWhereThatIsSafe(t *testing.T) {
	h := newHost(t)
	if err := os.Remove(h.dirs.Tokens); err != nil {
		t.Fatal(err)
	}
	k := h.keeper()
	mint(t, k, alice)
	if err := os.RemoveAll(h.dirs.Tokens); err != nil {
		t.Fatal(err)
	}
	k.scan()
	mint(t, k, alice)
	if h.secured != 2 {
		t.Errorf("made %d times, want 2", h.secured)
	}
}

func TestOS3MissingDirectoryIsNamedWhereItCannotBeMade(t *testing.T) {
	h := newHost(t)
	if err := os.Remove(h.dirs.Tokens); err != nil {
		t.Fatal(err)
	}
	h.setSecure(&platform.AccessError{Path: filepath.Dir(h.dirs.Tokens), Problem: "owner is uid 998, want 942", Fix: "chown 942 /run/postern"})
	k := h.keeper()
	dir := mustDirError(t, k, "owner is uid 998, want 942")
	if dir.Path != filepath.Dir(h.dirs.Tokens) || dir.Fix != "chown 942 /run/postern" {
		t.Errorf("got %+v", dir)
	}
	h.setSecure(nil)
	k.scan()
	mint(t, k, alice)
}

// The directory is right, and the path that clients know does not lead there:
// Health says so, and nobody calls it replaced at every look.
func TestDirectoryThatClientsCannotReachIsNotRight(t *testing.T) {
	for _, broken := range []string{"at the start", "later"} {
		t.Run(broken, func(t *testing.T) {
			h := newHost(t)
			way := &platform.AccessError{Path: "/var/opt/azcmagent/tokens", Problem: "cannot be reached", Fix: "ln -s a b"}
			if broken == "at the start" {
				h.setWay(way)
			}
			var events []string
			k, err := New(Options{Host: h, Poll: true, Event: func(e Event) { events = append(events, e.Name) }})
			if err != nil {
				t.Fatal(err)
			}
			h.setWay(way)
			for range 3 {
				k.scan()
				if got := k.Health(); !strings.Contains(got.Problem, way.Path+": cannot be reached") || got.Fix != way.Fix {
					t.Errorf("health %+v", got)
				}
			}
			_ = mustDirError(t, k, "cannot be reached")
			h.setWay(nil)
			k.scan()
			mint(t, k, alice)
			if !slices.Equal(events, []string{"access-drift"}) {
				t.Errorf("events %q", events)
			}
		})
	}
}

func TestDirErrorNamesPathCauseAndCureForEveryCause(t *testing.T) {
	missing := &os.PathError{Op: "open", Path: "/x", Err: os.ErrNotExist}
	full := &os.PathError{Op: "write", Path: "/run/postern/tokens/x", Err: errors.New("no space left on device")}
	for _, tc := range []struct {
		err           error
		problem, path string
	}{
		{missing, "does not exist", "/t"},
		{full, "write: no space left on device", "/t"},
		{errors.New("odd"), "odd", "/t"},
		{&platform.AccessError{Path: "/p", Problem: "mode is 0777"}, "mode is 0777", "/p"},
		{&DirError{Path: "/q", Problem: "p", Fix: "f"}, "p", "/q"},
	} {
		e := dirError("/t", tc.err)
		if e.Problem != tc.problem || e.Path != tc.path || e.Fix == "" || !strings.Contains(e.Error(), tc.path+": "+tc.problem) {
			t.Errorf("%v: got %+v", tc.err, e)
		}
	}
}
