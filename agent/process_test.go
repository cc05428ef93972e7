//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postern/agent/control"
	"postern/platform/platformtest"
)

// patience is for a machine that is busy with other things.
const patience = 60 * time.Second

// process is the real program in a process of its own (TestMain puts it into
// the path).
type process struct {
	*exec.Cmd
	mu    sync.Mutex
	said  bytes.Buffer // stdout and stderr; guarded by mu
	ended chan struct{}
}

// Write keeps what the program says.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.Write(b)
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.String()
}

// begin starts the program; it is killed at the end of the test, if it still runs.
func begin(t *testing.T, change func(*exec.Cmd), args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command("postern", args...), ended: make(chan struct{})}
	p.Stdout, p.Stderr = io.Writer(p), io.Writer(p)
	p.WaitDelay = time.Second
	if change != nil {
		change(p.Cmd)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.Wait() // its exit code says how it ended
	}()
	t.Cleanup(func() {
		_ = p.Process.Kill() // it may have ended
		<-p.ended
	})
	return p
}

// await polls until ok, and fails with what the program said if it ends before.
func (p *process) await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for !ok() {
		select {
		case <-p.ended:
			if ok() {
				return
			}
			t.Fatalf("%s: it ended with %d: %s", what, p.ProcessState.ExitCode(), p.text())
		case <-deadline:
			t.Fatalf("%s: not within %s: %s", what, patience, p.text())
		case <-poll.C:
		}
	}
}

// says waits for words in the output.
func (p *process) says(t *testing.T, words string) {
	t.Helper()
	p.await(t, words, func() bool { return strings.Contains(p.text(), words) })
}

// exit waits for the end and returns the exit code.
func (p *process) exit(t *testing.T) int {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		t.Fatalf("it does not end: %s", p.text())
	}
	return p.ProcessState.ExitCode()
}

// stop asks the program to end and wants it to end well.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	if code := p.exit(t); code != control.ExitDone {
		t.Errorf("it ended with %d: %s", code, p.text())
	}
}

// place is where one agent of a test keeps its things.
type place struct {
	dir, config, arc string
}

// newPlace writes a configuration that disturbs nobody; lines stand before its
// first table.
func newPlace(t *testing.T, lines ...string) place {
	t.Helper()
	arc, release, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	p := place{dir: platformtest.Dir(t), arc: arc}
	p.config = filepath.Join(p.dir, "postern.toml")
	p.write(t, lines...)
	return p
}

func (p place) write(t *testing.T, lines ...string) {
	t.Helper()
	group := fmt.Sprintf("group = \"%d\"", os.Getgid())
	for _, l := range lines {
		if strings.HasPrefix(l, "group") {
			group = ""
		}
	}
	text := fmt.Sprintf("state_dir = %q\nruntime_dir = %q\ntokens_dir = %q\n%s\n%s\n[arc]\nlisten = [%q, %q]\n",
		p.dir+"/state", p.dir+"/run", p.dir+"/tokens", group, strings.Join(lines, "\n"), p.arc, onIPv6(p.arc))
	if err := os.WriteFile(p.config, []byte(text), 0o644); err != nil { //nolint:gosec // a configuration is public
		t.Fatal(err)
	}
}

// use is for begin: the program finds the configuration in its environment.
func (p place) use(cmd *exec.Cmd) { cmd.Env = append(os.Environ(), "POSTERN_CONFIG="+p.config) }

// do runs one verb to its end.
func (p place) do(t *testing.T, args ...string) (code int, said string) {
	t.Helper()
	verb := begin(t, p.use, args...)
	code = verb.exit(t)
	return code, verb.text()
}

// run starts the agent and waits until it is ready.
func (p place) run(t *testing.T, args ...string) *process {
	t.Helper()
	agent := begin(t, p.use, append([]string{"run"}, args...)...)
	agent.says(t, "ready")
	return agent
}
