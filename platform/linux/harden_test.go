//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"postern/platform"
	"postern/platform/platformtest"
)

// allThreads reports whether this binary can act on all of its threads, as the
// product can. With cgo (and so with -race) it cannot.
func allThreads() bool {
	return !errors.Is(onAllThreads(unix.SYS_GETPID, 0, 0, 0), syscall.ENOTSUP)
}

func needAllThreads(t *testing.T) {
	t.Helper()
	if !allThreads() {
		t.Skip("not run: a binary with cgo cannot act on all of its threads; run with CGO_ENABLED=0, as the product is built")
	}
}

// playHardened drops and hardens like the agent, and looks at the result.
func playHardened() error {
	h, err := childHost(os.Getenv("BASE"))
	if err != nil {
		return err
	}
	if err := h.Drop("54321:43210"); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil { // the change of account had cleared it
		return err
	}
	level, err := h.Harden()
	if err != nil || level != "core dump privileges" {
		return fmt.Errorf("level %q: %w", level, err)
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, task := range tasks {
		status, err := os.ReadFile("/proc/self/task/" + task.Name() + "/status")
		if err != nil || !strings.Contains(string(status), "NoNewPrivs:\t1") {
			return fmt.Errorf("thread %s may get privileges: %w", task.Name(), err)
		}
	}
	var core unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &core); err != nil || core.Max != 0 {
		return fmt.Errorf("core limit %d: %w", core.Max, err)
	}
	if got := unix.Umask(0o077); got != 0o077 {
		return fmt.Errorf("umask is %04o", got)
	}
	// An undumpable process must still make files the safe way.
	if err := h.WriteFile(filepath.Join(h.dirs.State, "kek"), []byte("x"), platform.Private); err != nil {
		return err
	}
	if h.without.procFD.Load() || h.without.tmpfile.Load() {
		return errors.New("an undumpable process lost O_TMPFILE")
	}
	if err := h.Secure(h.dirs.Tokens, platform.TokenReaders); err != nil {
		return err
	}
	fmt.Println("hardened", os.Getpid())
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func TestHardenedProcessKeepsItsMemoryAndItsAbilities(t *testing.T) {
	needRoot(t)
	needAllThreads(t)
	platformtest.NeedFeature(t, platformtest.OwnThreads)
	h := testHost(t)
	if err := h.Prepare("54321:43210"); err != nil {
		t.Fatal(err)
	}
	p := start(t, "hardened", func(c *exec.Cmd) { c.Env = append(c.Env, "BASE="+filepath.Dir(h.dirs.State)) })
	if line := p.line(t); !strings.HasPrefix(line, "hardened") {
		t.Fatal(line)
	}
	thief := exec.Command("cat", fmt.Sprintf("/proc/%d/environ", p.Process.Pid))
	thief.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 54321, Gid: 43210}}
	if out, err := thief.CombinedOutput(); err == nil {
		t.Errorf("the same account read %d bytes of its memory", len(out))
	}
}

// playConfined shuts itself in and tries the doors.
func playConfined() error {
	base := os.Getenv("BASE")
	h, err := childHost(base)
	if err != nil {
		return err
	}
	if err := errors.Join(h.Secure(h.dirs.State, platform.Private), h.Secure(h.dirs.Runtime, platform.Public),
		h.Secure(h.dirs.Tokens, platform.TokenReaders)); err != nil {
		return err
	}
	d, err := h.OpenDir(h.dirs.Tokens, platform.TokenReaders)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	level, err := h.Confine(platform.Confinement{Read: []string{filepath.Join(base, "ca.pem"), "/no/such/file"}})
	if err != nil {
		return err
	}
	fmt.Println(level)
	for name, err := range workOf(h, base, d, ln) {
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for name, err := range mischief(base, level) {
		if !errors.Is(err, os.ErrPermission) {
			return fmt.Errorf("may %s: %v", name, err) //nolint:errorlint // the result of a trial, often nil
		}
	}
	return nil
}

// workOf is what a confined agent does all day.
func workOf(h *Host, base string, d platform.Dir, ln net.Listener) map[string]error {
	state := filepath.Join(h.dirs.State, "x")
	return map[string]error{
		"write state":       h.WriteFile(state, []byte("x"), platform.Private),
		"write state again": h.WriteFile(state, []byte("y"), platform.Private),
		"make a challenge":  d.Create("a.key", []byte("x")),
		"check tokens":      d.Check(),
		"remove it":         d.Remove("a.key"),
		"read accounts":     readable("/etc/passwd"),
		"read ca":           readable(filepath.Join(base, "ca.pem")),
		"dial and accept":   roundTrip(ln),
		"run itself":        runSelf(),
		"listen on unix":    listens("unix", filepath.Join(h.dirs.Runtime, "s")),
	}
}

// mischief is what it must not be able to do. Kernels before 6.7 have no rule
// for TCP (Landlock ABI 4).
func mischief(base, level string) map[string]error {
	tried := map[string]error{
		"read elsewhere":  readable(filepath.Join(base, "private")),
		"write elsewhere": os.WriteFile(filepath.Join(base, "new"), nil, 0o600),
		"write config":    os.WriteFile(filepath.Join(base, "etc", "postern.toml"), nil, 0o600),
		"run a shell":     exec.Command("/bin/sh", "-c", "true").Run(),
	}
	var abi int
	if n, _ := fmt.Sscanf(level, "landlock %d", &abi); n == 0 || abi >= 4 {
		tried["listen on tcp"] = listens("tcp4", "127.0.0.1:0")
	}
	return tried
}

func runSelf() error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	self := exec.Command(exe)
	self.Env = append(os.Environ(), childVariable+"=true")
	return self.Run()
}

func readable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return f.Close()
}

func listens(network, address string) error {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // which no rule of Landlock sees: why Listen turns it off
	ln, err := lc.Listen(context.Background(), network, address)
	if err != nil {
		return err
	}
	return ln.Close()
}

func roundTrip(ln net.Listener) error {
	c, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		return err
	}
	s, err := ln.Accept()
	if err != nil {
		return err
	}
	return errors.Join(c.Close(), s.Close())
}

func TestConfinedProcessCanDoItsWorkAndNothingElse(t *testing.T) {
	needAllThreads(t)
	h := testHost(t)
	platformtest.NeedFeature(t, platformtest.Landlock)
	base := filepath.Dir(h.dirs.State)
	write(t, base, "ca.pem", "x")
	write(t, base, "private", "x")
	write(t, base, "etc/postern.toml", "x")
	p := start(t, "confined", func(c *exec.Cmd) { c.Env = append(c.Env, "BASE="+base) })
	if level := p.line(t); !strings.HasPrefix(level, "landlock ") {
		t.Errorf("level is %q", level)
	}
}

func TestKernelWithoutLandlockSaysWhoProvidesTheSandbox(t *testing.T) {
	for _, abi := range []int{1, 2, 3, 4, 5, 99} {
		files, network := handledByABI(abi)
		if files&unix.LANDLOCK_ACCESS_FS_WRITE_FILE == 0 || (network != 0) != (abi >= 4) || (files&unix.LANDLOCK_ACCESS_FS_TRUNCATE != 0) != (abi >= 3) {
			t.Errorf("abi %d takes away %#x and %#x", abi, files, network)
		}
	}
	for _, r := range (&Host{dirs: platform.Dirs{State: "/s", Runtime: "/r", Tokens: "/t", TokensLiteral: "/l", Config: "/c"}}).rules(platform.Confinement{}) {
		if r.path == "/" {
			t.Errorf("the root directory is open: %+v", r)
		}
	}
}
