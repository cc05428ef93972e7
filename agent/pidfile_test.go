//go:build linux

package main

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"postern/agent/control"
)

func TestPIDFileIsWrittenAndTakenAway(t *testing.T) {
	p := newPlace(t)
	path := filepath.Join(p.dir, "pid")
	if err := os.WriteFile(path, []byte("999999999 of an agent that was killed\n"), 0o644); err != nil { //nolint:gosec // a pid is public
		t.Fatal(err)
	}
	agent := p.run(t, "--pidfile", path)
	want := strconv.Itoa(agent.Process.Pid) + "\n"
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("the file holds %q (%v), want %q", got, err, want)
	}
	// A second agent is turned away and leaves the file as it is.
	if code, said := p.do(t, "run", "--pidfile", path); code != control.ExitFailed || !strings.Contains(said, "another postern is at work") {
		t.Errorf("the second one ended with %d: %s", code, said)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("after a second agent the file holds %q (%v), want %q", got, err, want)
	}
	agent.stop(t)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
}

// TestPIDFileInADirectoryOfRoot: root opens it, the account that root became
// writes it and empties it at the end.
func TestPIDFileInADirectoryOfRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not run: becoming another account needs root; the tier of root plays this")
	}
	p := newPlace(t, `group = "65534"`)
	path := filepath.Join(p.dir, "pid")
	program := copyProgram(t, p.dir)
	run := func() *process {
		agent := begin(t, func(cmd *exec.Cmd) { p.use(cmd); cmd.Path = program }, "run", "--pidfile", path, "--user", "65534:65534")
		agent.says(t, "ready")
		return agent
	}
	agent := run()
	status, err := os.ReadFile("/proc/" + strconv.Itoa(agent.Process.Pid) + "/status")
	if err != nil || !bytes.Contains(status, []byte("Uid:\t65534\t65534")) {
		t.Fatalf("the agent did not become the account: %v %s", err, status)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != strconv.Itoa(agent.Process.Pid)+"\n" {
		t.Errorf("the file holds %q (%v), want %d", got, err, agent.Process.Pid)
	}
	agent.stop(t)
	if got, err := os.ReadFile(path); err != nil || len(got) != 0 {
		t.Errorf("the file holds %q (%v), want nothing", got, err)
	}
	agent = run() // over what is left
	agent.stop(t)
}

func TestPIDFileThatIsNoneIsRefused(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	if err := os.WriteFile(target, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	second := filepath.Join(dir, "second") // as who owns the directory could make it of another's file
	if err := os.Link(target, second); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, second, dir, filepath.Join(dir, "missing", "pid")} {
		file, err := openPID(path)
		if f := control.AsFault(err); err == nil || f.Exit != control.ExitUsage || !strings.HasPrefix(f.Fix, "ls -ld ") {
			t.Errorf("%s: %v, %+v", path, file, f)
		}
	}
	if raw, err := os.ReadFile(target); err != nil || string(raw) != "precious" {
		t.Errorf("the link's target holds %q (%v)", raw, err)
	}
	var none *pidFile
	none.close(slog.New(slog.DiscardHandler))
	if err := none.write(); err != nil {
		t.Error(err)
	}
}
