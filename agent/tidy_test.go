//go:build linux

package main

import (
	"os"
	"os/exec"
	"testing"
)

// TestRunOfTheseTestsLeavesNothingBehind runs one simulation in a process of
// its own and looks into the directory of temporary files afterwards.
func TestRunOfTheseTestsLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestIdentityLivesToTheLastSecond$")
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		t.Errorf("%s is left behind", e.Name())
	}
}
