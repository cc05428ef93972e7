//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postern/agent/control"
)

func TestInterruptedVerbSaysSoAndHowToBeginAgain(t *testing.T) {
	p := newPlace(t)
	wait := begin(t, p.use, "wait", "--for", "ready", "--timeout", "60s")
	wait.says(t, "waiting for ready")
	if err := wait.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := wait.exit(t); code != control.ExitInterrupted || !strings.Contains(wait.text(), "postern: interrupted before it was done\nfix: postern wait --for ready --timeout 60s\n") {
		t.Errorf("exit code %d: %s", code, wait.text())
	}
}

func TestMissingConfigurationIsWordedOnce(t *testing.T) {
	code, said := newPlace(t).do(t, "--config", "/nonexistent/postern.toml", "status")
	if code != control.ExitUsage || strings.Count(said, "config: ") > 1 || !strings.Contains(said, "| sudo tee /nonexistent/postern.toml") {
		t.Errorf("exit code %d: %s", code, said)
	}
}

func TestFullDiskOfAnAuthorityIsNamedWithACommand(t *testing.T) {
	f := control.AsFault(authorityOpenFault(&os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, &authorityFlags{dir: filepath.Join("/srv", "ca")}))
	if f.Exit != control.ExitFailed || f.Fix != "df -h /srv/ca" {
		t.Errorf("%+v", f)
	}
}
