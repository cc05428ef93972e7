//go:build linux

package initfiles

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestStatusTellsEverybody: only root may see which program a process of root's
// or of the agent's is, and monitoring is not root.
func TestStatusTellsEverybody(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not run: a process that others may not look into needs root")
	}
	dir, err := os.MkdirTemp("/dev/shm", "postern-init-") //nolint:usetesting // t.TempDir cannot be told where
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	must(t, os.Chmod(dir, 0o755)) //nolint:gosec // another account reads it
	agent, pidfile := filepath.Join(dir, "postern"), filepath.Join(dir, "pid")
	sleep, err := exec.LookPath("sleep")
	must(t, err)
	program, err := os.ReadFile(sleep)
	must(t, err)
	must(t, os.WriteFile(agent, program, 0o755)) //nolint:gosec // a program
	script, err := File("sysvinit/postern", agent)
	must(t, err)
	text := strings.Replace(string(script), "pidfile=/run/postern.pid", "pidfile="+pidfile, 1)
	status := func(uid uint32, want int) {
		t.Helper()
		cmd := exec.Command("sh", "-s", "status")
		cmd.Stdin = strings.NewReader(text)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Errorf("status as uid %d is %d, want %d: %s", uid, got, want, out)
		}
	}
	write := func(pid int) {
		must(t, os.WriteFile(pidfile, []byte(strconv.Itoa(pid)+"\n"), 0o644)) //nolint:gosec // a pid is public
	}
	status(0, 3)
	running, other := exec.Command(agent, "600"), exec.Command(sleep, "600")
	for _, p := range []*exec.Cmd{running, other} {
		must(t, p.Start())
		t.Cleanup(func() { _ = p.Process.Kill(); _ = p.Wait() })
	}
	write(other.Process.Pid)
	for _, uid := range []uint32{0, 65534} {
		status(uid, 1) // the number is another program's now
	}
	write(running.Process.Pid)
	for _, uid := range []uint32{0, 65534} {
		status(uid, 0)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
