//go:build linux

package install

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// TestEndStopsTheAgentsOfOneProgramAlone: not what runs from elsewhere.
func TestEndStopsTheAgentsOfOneProgramAlone(t *testing.T) {
	dir := volatileDir(t)
	cat, err := exec.LookPath("cat")
	must(t, err)
	program, err := os.ReadFile(cat)
	must(t, err)
	must(t, syscall.Mkfifo(filepath.Join(dir, "run"), 0o600))
	start := func(name string) (ended chan error) {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, program, 0o700)) //nolint:gosec // a program
		cmd := exec.Command(path, "run")            // waits for somebody to write
		cmd.Dir = dir
		must(t, cmd.Start())
		ended = make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		return ended
	}
	ours, other := start("postern"), start("other")
	must(t, Live{Binary: filepath.Join(dir, "postern")}.End(t.Context()))
	if err := <-ours; err == nil || err.Error() != "signal: terminated" {
		t.Errorf("ours ended with %v", err)
	}
	select {
	case err := <-other:
		t.Errorf("another program ended with %v", err)
	default:
	}
}

// TestOpenRCIsFoundByWhatItLeaves: its directory can be written by its group,
// and beside it runs busybox, whose line in /etc/inittab it does not look at.
func TestOpenRCIsFoundByWhatItLeaves(t *testing.T) {
	run := t.TempDir()
	if f := detectSign(run); f.Init != "" {
		t.Errorf("nothing is there, and %s was found", f.Init)
	}
	must(t, os.Mkdir(filepath.Join(run, "openrc"), 0o775))
	must(t, os.Chmod(filepath.Join(run, "openrc"), 0o775)) //nolint:gosec // as OpenRC has it
	must(t, os.WriteFile(filepath.Join(run, "openrc/softlevel"), []byte("default"), 0o600))
	if f := detectSign(run); f.Init != "openrc" || !f.Running {
		t.Errorf("found %+v", f)
	}
}
