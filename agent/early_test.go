//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestReloadWhileTheDatabasesAreReadEndsNothing: an init system may send one as
// soon as there is a process, and a slow card takes its time.
func TestReloadWhileTheDatabasesAreReadEndsNothing(t *testing.T) {
	p := newPlace(t)
	pidfile := filepath.Join(p.dir, "pid")
	agent := begin(t, p.use, "run", "--pidfile", pidfile) // opened before anything is read
	agent.await(t, "ready", func() bool {
		for range 1000 {
			if _, err := os.Lstat(pidfile); err == nil {
				_ = agent.Process.Signal(syscall.SIGHUP) // it may have ended, as await will see
				_ = agent.Process.Signal(syscall.SIGUSR1)
			}
		}
		return strings.Contains(agent.text(), `"ready"`) || strings.Contains(agent.text(), "event=ready")
	})
	agent.await(t, "both are heard", func() bool {
		_ = agent.Process.Signal(syscall.SIGUSR1)
		return strings.Contains(agent.text(), "state-dump")
	})
	agent.stop(t)
}
