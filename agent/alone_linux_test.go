package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"postern/agent/control"
	"postern/platform/platformtest"
)

// owned is a place as install leaves it: the state belongs to the account
// postern, which a mount namespace of each command knows as 65534.
type owned struct {
	place
	program string // in a directory that the account can enter, or not
	users   string
}

func newOwned(t *testing.T, programs string, mode os.FileMode) owned {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not run: becoming another account needs root; the tier of root plays this")
	}
	o := owned{place: newPlace(t, `group = "65534"`, `clock = "trusted"`)}
	if err := os.Mkdir(filepath.Join(o.dir, programs), mode); err != nil {
		t.Fatal(err)
	}
	o.program, o.users = copyProgram(t, filepath.Join(o.dir, programs)), filepath.Join(o.dir, "passwd")
	state := filepath.Join(o.dir, "state")
	err := errors.Join(os.Mkdir(state, 0o700), os.Chown(state, 65534, 65534),
		os.WriteFile(o.users, []byte("root:x:0:0::/:/bin/sh\npostern:x:65534:65534::/:/bin/false\n"), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// copyProgram puts the program into a directory: other accounts cannot enter
// the one of the tests.
func copyProgram(t *testing.T, dir string) string {
	t.Helper()
	found, err := exec.LookPath("postern")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(found)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "postern")
	if err := os.WriteFile(path, raw, 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	return path
}

// begin starts the program in the namespace.
func (o owned) begin(t *testing.T, args ...string) *process {
	t.Helper()
	return begin(t, func(cmd *exec.Cmd) {
		o.use(cmd)
		cmd.Env = slices.DeleteFunc(cmd.Env, func(v string) bool { return strings.HasPrefix(v, "SSL_CERT_") }) // it would say that it does not hear them
		shell, err := exec.LookPath("sh")
		if err != nil {
			t.Fatal(err)
		}
		cmd.Path = shell
		cmd.Args = append([]string{"sh", "-c", `mount --bind "$0" /etc/passwd && exec "$@"`, o.users, o.program}, args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	})
}

func (o owned) mustDo(t *testing.T, args ...string) string {
	t.Helper()
	verb := o.begin(t, args...)
	if code := verb.exit(t); code != control.ExitDone {
		t.Fatalf("%q ended with %d: %s", args, code, verb.text())
	}
	return verb.text()
}

// files lists everything below the place, with its owner.
func (o owned) files(t *testing.T, below ...string) []string {
	t.Helper()
	var found []string
	for _, dir := range below {
		err := filepath.WalkDir(filepath.Join(o.dir, dir), func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := e.Info()
			if err != nil {
				return err
			}
			owner, _ := ownerOf(info)
			found = append(found, fmt.Sprintf("%d %s", owner, strings.TrimPrefix(path, o.dir)))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

func (o owned) wantTheAccounts(t *testing.T, after string) {
	t.Helper()
	found := o.files(t, "state", "run", "tokens")
	for _, f := range found {
		if !strings.HasPrefix(f, "65534 ") {
			t.Errorf("after %s: uid %s", after, f)
		}
	}
	if len(found) < 5 {
		t.Errorf("after %s there is only %q", after, found)
	}
}

func TestVerbsOfRootWithoutAnAgentLeaveTheFilesToTheirAccount(t *testing.T) {
	o := newOwned(t, "bin", 0o755)
	address, release, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	dir := filepath.Join(platformtest.Dir(t), "ca")
	ca := begin(t, nil, "authority", "run", "--dir", dir, "--listen", address)
	ca.says(t, "site authority on")
	mustDo(t, o.place, "authority", "resource", "add", "https://vault.azure.net", "--dir", dir)
	claim := func(name string) string {
		path := filepath.Join(o.dir, name)
		text := firstLine(mustDo(t, o.place, "authority", "claim", name, "--dir", dir))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}

	o.mustDo(t, "reset", "--all", "--yes")
	o.wantTheAccounts(t, "reset")
	path := claim("gw-0042")
	if said := o.mustDo(t, "connect", "--claim-file", path, "--consume"); !strings.Contains(said, "is erased") {
		t.Errorf("connect said %s", said)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("root's claim is still there: %v", err)
	}
	o.wantTheAccounts(t, "connect")
	agent := o.begin(t, "run", "--user", "postern")
	agent.says(t, "event=ready")
	if said := firstLine(o.mustDo(t, "token", "--resource", "https://vault.azure.net")); strings.Count(said, ".") != 2 {
		t.Errorf("the token is %q", said)
	}
	agent.stop(t)
	if said := agent.text(); strings.Contains(said, "store-") || strings.Contains(said, "in memory") {
		t.Errorf("the agent could not use what root left: %s", said)
	}
	o.wantTheAccounts(t, "run")
	o.mustDo(t, "disconnect", "--local-only", "--yes")
	o.wantTheAccounts(t, "disconnect")
	o.mustDo(t, "connect", "--claim-file", claim("gw-0043"))
	o.mustDo(t, "reset", "--all", "--yes")
	o.wantTheAccounts(t, "reset of an identity")
}

func TestVerbsOfRootBeginNothingWhereTheAccountCannotExecuteTheProgram(t *testing.T) {
	o := newOwned(t, "closed", 0o700) // as /root is
	claim := filepath.Join(o.dir, "claim")
	if err := os.WriteFile(claim, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := o.files(t, ".")
	for _, args := range [][]string{
		{"reset", "--all", "--yes"},
		{"connect", "--claim-file", claim, "--consume"},
		{"disconnect", "--local-only", "--yes"},
		{"run", "--user", "postern"},
	} {
		verb := o.begin(t, args...)
		if code := verb.exit(t); code != control.ExitPermission {
			t.Errorf("%q ended with %d", args, code)
		}
		lines := strings.Split(strings.TrimSpace(verb.text()), "\n")
		if len(lines) != 2 || !strings.HasPrefix(lines[0], "postern: become postern: ") || !strings.Contains(lines[0], "may not execute it") ||
			!strings.HasPrefix(lines[1], "fix: sudo install -m 0755 "+o.program+" ") {
			t.Errorf("%q said %s", args, verb.text())
		}
		if after := o.files(t, "."); !slices.Equal(after, before) {
			t.Errorf("%q left\n%q, there was\n%q", args, after, before)
		}
	}
	if raw, err := os.ReadFile(claim); err != nil || !bytes.Equal(raw, []byte("x")) {
		t.Errorf("the claim is %q (%v)", raw, err)
	}
}
