//go:build linux

package qemu

import (
	"testing"
	"time"

	"postern/crosscompile/qemu/port"
)

// Steps awaits every named step, in any order, until the guest says exit or
// the machine ends, at most for limit. It fails the test for a step that is missing,
// that failed, or that nobody expected, and prints the end of the
// console. It returns the steps by name.
func (vm *VM) Steps(t testing.TB, want []string, limit time.Duration) map[string]Message {
	t.Helper()
	expected := map[string]bool{}
	for _, name := range want {
		expected[name] = true
	}
	got := map[string]Message{}
	late := time.NewTimer(limit)
	defer late.Stop()
	for open := true; open; {
		select {
		case m, more := <-vm.lines.out:
			switch {
			case !more || m.Kind == port.Exit:
				open = false
			case m.Kind == port.Out:
				t.Logf("guest: %s", m.T)
			case m.Kind == port.Step:
				t.Logf("step %s: ok=%v up=%.1f %s", m.Name, m.OK, m.Up, m.Got)
				got[m.Name] = m
				if !m.OK {
					t.Errorf("step %s failed: %s", m.Name, m.Got)
				} else if !expected[m.Name] {
					t.Errorf("step %s was not expected", m.Name)
				}
			}
		case <-late.C:
			t.Errorf("not every step was said within %s", limit)
			vm.Kill()
			open = false
		}
	}
	for _, name := range want {
		if _, said := got[name]; !said {
			t.Errorf("step %s is missing", name)
		}
	}
	if t.Failed() {
		t.Logf("the end of the console:\n%s", vm.Tail(50))
	}
	return got
}
