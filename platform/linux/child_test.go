//go:build linux

package linux

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"postern/platform/platformtest"
)

// childVariable names the part of this file's programs that a re-executed test
// binary plays, instead of running tests.
const childVariable = "POSTERN_TEST_CHILD"

func TestMain(m *testing.M) {
	name := os.Getenv(childVariable)
	if name == "" {
		goleak.VerifyTestMain(m)
		return
	}
	play, ok := map[string]func() error{
		"caller":    playCaller,
		"inheritor": playInheritor,
		"dropped":   playDropped,
		"hardened":  playHardened,
		"confined":  playConfined,
		"neighbour": playNeighbour,
		"secluded":  playSecluded,
		"true":      func() error { return nil },
	}[name]
	if !ok {
		fmt.Fprintln(os.Stderr, "no such child:", name)
		os.Exit(2)
	}
	if err := play(); err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
}

// process is a child that answers line by line.
type process struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// start runs the test binary as one of the children. Its stderr goes to the
// test's output; it is waited for at the end.
func start(t *testing.T, name string, configure func(*exec.Cmd)) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: exec.Command(exe)}
	p.Env = append(os.Environ(), childVariable+"="+name, "GROUP="+strconv.Itoa(platformtest.Reader()))
	p.Stderr = t.Output()
	if p.in, err = p.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	if configure != nil {
		configure(p.Cmd)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.in.Close()
		if err := p.Wait(); err != nil {
			t.Errorf("child %s: %v", name, err)
		}
	})
	return p
}

// line is the next line that the child prints.
func (p *process) line(t *testing.T) string {
	t.Helper()
	s, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatalf("child said %q and then: %v", s, err)
	}
	return strings.TrimSuffix(s, "\n")
}

// say sends the child a line.
func (p *process) say(t *testing.T, s string) {
	t.Helper()
	if _, err := io.WriteString(p.in, s+"\n"); err != nil {
		t.Fatal(err)
	}
}

// stdin is what a child was told.
func stdin() func() string {
	r := bufio.NewReader(os.Stdin)
	return func() string {
		s, err := r.ReadString('\n')
		if err != nil {
			return ""
		}
		return strings.TrimSuffix(s, "\n")
	}
}

// needRoot says that a test did not run.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not run: needs root for other accounts and namespaces")
	}
}

// stranger is an account that no file names.
const stranger = "54321:54321"
