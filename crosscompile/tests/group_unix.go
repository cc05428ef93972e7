//go:build unix

package main

import (
	"os/exec"
	"syscall"
	"time"
)

// together puts a command and all that it starts into one group, which is ended
// as a whole: go test's children would outlive it, machines included.
func together(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 2 * patience
	cmd.Cancel = func() error {
		group := -cmd.Process.Pid
		time.AfterFunc(patience, func() { _ = syscall.Kill(group, syscall.SIGKILL) })
		return syscall.Kill(group, syscall.SIGTERM)
	}
}
