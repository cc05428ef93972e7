//go:build linux

package main

import (
	"os/exec"
	"strings"
	"testing"
)

func TestConnectionsLeaveDescriptorsForTheRest(t *testing.T) {
	for files, want := range map[uint64]int{
		unlimitedNumber: 128, 1024: 128, 192: 128, 191: 127, 100: 36, 72: 8, 71: 8, 20: 8, 0: 8,
	} {
		if got := connectionsFor(files); got != want {
			t.Errorf("%d files: %d connections, want %d", files, got, want)
		}
	}
}

// TestFewOpenFilesLowerTheCapAndAreSaid lets the real program have 80 of them.
func TestFewOpenFilesLowerTheCapAndAreSaid(t *testing.T) {
	p := newPlace(t)
	for files, lowered := range map[string]bool{"80": true, "1024": false} {
		agent := begin(t, func(cmd *exec.Cmd) {
			p.use(cmd)
			shell, err := exec.LookPath("sh")
			if err != nil {
				t.Fatal(err)
			}
			cmd.Args = []string{"sh", "-c", "ulimit -n " + files + " && exec \"$0\" run", cmd.Path}
			cmd.Path = shell
		})
		agent.says(t, "event=ready")
		if said := strings.Contains(agent.text(), "event=open-files allowed=80 connections=16"); said != lowered {
			t.Errorf("%s files: %s", files, agent.text())
		}
		agent.stop(t)
	}
}
