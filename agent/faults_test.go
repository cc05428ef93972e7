//go:build linux

package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"postern/agent/control"
)

// The rows OS5 to OS12 of firmware-notes/faults.md that concern the program as
// a whole.

func TestOS5MissingGroupIsNamedWithTheCommand(t *testing.T) {
	p := newPlace(t, `group = "postern-nobody-has-this"`)
	code, said := p.do(t, "run")
	if code != control.ExitUsage || !strings.Contains(said, "postern-nobody-has-this") || !strings.Contains(said, "fix: sudo groupadd --system postern-nobody-has-this") {
		t.Errorf("exit code %d: %s", code, said)
	}
	if _, err := os.Lstat(filepath.Join(p.dir, "state")); err == nil {
		t.Error("it made its state directory all the same")
	}
}

// TestOS6WithoutIPv6TheOtherFamilyIsServed takes the family away in a network
// namespace of its own.
func TestOS6WithoutIPv6TheOtherFamilyIsServed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not run: a network namespace needs root; the tier of root plays this")
	}
	for family, line := range map[string]string{"without": "level=WARN msg=\"address family is missing on this machine\" address=[::1]:", "with": ""} {
		p := newPlace(t)
		disable := map[string]string{"without": "1", "with": "0"}[family]
		agent := begin(t, func(cmd *exec.Cmd) {
			p.use(cmd)
			shell, err := exec.LookPath("sh")
			if err != nil {
				t.Fatal(err)
			}
			cmd.Args = []string{"sh", "-c", "ip link set lo up && echo " + disable + " > /proc/sys/net/ipv6/conf/all/disable_ipv6 && exec \"$0\" run", cmd.Path}
			cmd.Path = shell
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		})
		agent.says(t, "event=ready")
		said := agent.text()
		if warned := strings.Contains(said, "address family is missing"); warned != (line != "") || !strings.Contains(said, line) {
			t.Errorf("%s IPv6: %s", family, said)
		}
		served := mustDo(t, p, "status", "endpoint", "--json")
		if !strings.Contains(served, p.arc) || strings.Contains(served, "[::1]") != (line == "") {
			t.Errorf("%s IPv6 it serves %s", family, served)
		}
		agent.stop(t)
	}
}

func TestOS7TakenPortNamesItsOwnerAndNoOtherIsTaken(t *testing.T) {
	p := newPlace(t)
	squatter, err := net.Listen("tcp", p.arc)
	if err != nil {
		t.Fatal(err)
	}
	code, said := p.do(t, "run")
	for _, want := range []string{p.arc, fmt.Sprintf("uid %d", os.Geteuid()), fmt.Sprintf("pid %d", os.Getpid()), "fix: sudo systemctl stop postern"} {
		if code != control.ExitFailed || !strings.Contains(said, want) {
			t.Errorf("exit code %d without %q: %s", code, want, said)
		}
	}
	if strings.Contains(said, "event=ready") {
		t.Errorf("it served elsewhere: %s", said)
	}
	if err := squatter.Close(); err != nil {
		t.Fatal(err)
	}
	p.run(t).stop(t) // nothing is left in the way
}

// TestOS8KilledAgentFindsItsCacheIntact: the kernel's way to end a process for
// memory is SIGKILL, without a word before.
func TestOS8KilledAgentFindsItsCacheIntact(t *testing.T) {
	p, ca := enrolled(t)
	agent := p.run(t)
	before := mustDo(t, p, "token", "--resource", "https://vault.azure.net")
	last, quiet := "", 0
	agent.await(t, "everything is on disk", func() bool { // 5 s without a write: tokens wait 2 s
		raw, err := os.ReadFile(filepath.Join(p.dir, "state", "cache.db"))
		now := fmt.Sprintf("%x %v", sha256.Sum256(raw), err)
		if quiet++; now != last {
			last, quiet = now, 0
		}
		return quiet >= 250
	})
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-agent.ended
	digest := identityOf(t, p)
	ca.stop(t) // a token can come from the cache alone now
	began := time.Now()
	agent = p.run(t)
	t.Logf("ready %s after the start", time.Since(began).Round(time.Millisecond))
	if got := identityOf(t, p); got != digest {
		t.Error("the identity's bytes changed")
	}
	if st := mustDo(t, p, "status", "--json"); strings.Contains(st, "damaged") || strings.Contains(agent.text(), "store-recovered") {
		t.Errorf("something was damaged: %s\n%s", st, agent.text())
	}
	if after := mustDo(t, p, "token", "--resource", "https://vault.azure.net"); after != before {
		t.Error("the token before the end is not the one after it")
	}
	agent.stop(t)
}

// TestOS9BadFileOnSIGHUPLeavesTheGrants: what was allowed stays allowed, what was
// not stays forbidden, and a good file is heard.
func TestOS9BadFileOnSIGHUPLeavesTheGrants(t *testing.T) {
	p, ca := enrolled(t)
	const resource = "https://vault.azure.net"
	grant := func(who string) string {
		return fmt.Sprintf("[[grant]]\nwho = %q\nidentity = \"system\"\nresources = [%q]\n", who, resource)
	}
	p.append(t, grant("uid:"+strconv.Itoa(os.Geteuid())))
	agent := p.run(t)
	mustDo(t, p, "token", "--resource", resource)
	good, err := os.ReadFile(p.config)
	if err != nil {
		t.Fatal(err)
	}
	for i, bad := range []string{"nonsense = [", "no_such_key = 1\n" + string(good), ""} {
		if bad == "" {
			err = os.Remove(p.config)
		} else {
			err = os.WriteFile(p.config, []byte(bad), 0o644) //nolint:gosec // a configuration is public
		}
		if err != nil {
			t.Fatal(err)
		}
		hangUp(t, agent, "configuration stays as it was", i+1)
		if err := os.WriteFile(p.config, good, 0o644); err != nil { //nolint:gosec // a configuration is public
			t.Fatal(err)
		}
		mustDo(t, p, "token", "--resource", resource)
	}
	p.write(t, `clock = "trusted"`)
	p.append(t, grant("uid:54321"))
	hangUp(t, agent, "grants read again", 1)
	if code, said := p.do(t, "token", "--resource", resource); code != control.ExitPermission {
		t.Errorf("after the good file: exit code %d: %s", code, said)
	}
	agent.stop(t)
	ca.stop(t)
}

func hangUp(t *testing.T, agent *process, words string, times int) {
	t.Helper()
	if err := agent.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	agent.await(t, words, func() bool { return strings.Count(agent.text(), words) == times })
}

// TestOS9SIGTERMUnderLoadEndsInTime: with callers at work and streams open, and
// with stdin, stdout and stderr closed.
func TestOS9SIGTERMUnderLoadEndsInTime(t *testing.T) {
	p := newPlace(t)
	agent := begin(t, func(cmd *exec.Cmd) {
		p.use(cmd)
		shell, err := exec.LookPath("sh")
		if err != nil {
			t.Fatal(err)
		}
		cmd.Args = []string{"sh", "-c", `exec "$0" run <&- >&- 2>&-`, cmd.Path}
		cmd.Path = shell
	})
	mustDo(t, p, "wait", "--timeout", "60s")
	ended := make(chan int)
	var asked atomic.Int64
	const callers = 8
	for range callers {
		go func() {
			answers := 0
			defer func() { ended <- answers }()
			for {
				resp, err := http.Get("http://" + p.arc + "/metadata/identity/oauth2/token?api-version=2020-06-01&resource=x")
				if err != nil {
					return
				}
				_ = resp.Body.Close()
				answers++
				asked.Add(1)
			}
		}()
	}
	idle, err := net.Dial("tcp", p.arc) // asks nothing
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close() //nolint:errcheck // nothing was asked
	follow := begin(t, p.use, "audit", "--follow")
	follow.await(t, "load", func() bool { return asked.Load() >= 100 })
	if err := agent.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-agent.ended:
	case <-time.After(5 * time.Second * busy):
		t.Fatalf("not out within %s", 5*time.Second*busy)
	}
	if code := agent.ProcessState.ExitCode(); code != control.ExitDone {
		t.Errorf("it ended with %d", code)
	}
	total := 0
	for range callers {
		total += <-ended
	}
	if total == 0 {
		t.Error("there was no load")
	}
	follow.exit(t)
}

// busy stretches limits of time on a machine that does other things as well.
const busy = 4

func TestOS11WrongConfigurationIsNamedByLineOrCommand(t *testing.T) {
	for _, row := range []struct {
		name, line string
		mode       os.FileMode
		want       []string
	}{
		{"an unknown key", "of_line_after = 3\n", 0o644, []string{":1: of_line_after: ", "offline_after", "fix: postern config print --defaults"}},
		{"a wrong type", "log_level = 3\n", 0o644, []string{":1: log_level: ", "fix: "}},
		{"no TOML", "log_level = \n", 0o644, []string{":1: ", "fix: "}},
		{"writable by others", "log_level = \"info\"\n", 0o666, []string{"can be written by other users (mode 0666)", "fix: sudo chmod go-w "}},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newPlace(t)
			raw, err := os.ReadFile(p.config)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p.config, append([]byte(row.line), raw...), 0o644); err != nil { //nolint:gosec // a configuration is public
				t.Fatal(err)
			}
			if err := os.Chmod(p.config, row.mode); err != nil { //nolint:gosec // that is the fault
				t.Fatal(err)
			}
			for _, verb := range []string{"run", "status", "config"} {
				args := []string{verb}
				if verb == "config" {
					args = append(args, "check")
				}
				code, said := p.do(t, args...)
				for _, want := range append(row.want, p.config) {
					if code != control.ExitUsage || !strings.Contains(said, want) {
						t.Errorf("%s: exit code %d without %q: %s", verb, code, want, said)
					}
				}
			}
			if _, err := os.Lstat(filepath.Join(p.dir, "state")); err == nil {
				t.Error("it made its state directory all the same")
			}
		})
	}
}

// TestOS12OlderBinaryLeavesNewerStateAlone: the schema in the identity file says
// that it is of a later release.
func TestOS12OlderBinaryLeavesNewerStateAlone(t *testing.T) {
	p, ca := enrolled(t)
	ca.stop(t)
	makeNewer(t, filepath.Join(p.dir, "state"))
	before := identityOf(t, p)
	agent := p.run(t)
	code, said := p.do(t, "status", "--exit-code")
	if code != control.ExitDamaged || !strings.Contains(said, "schema 2.0, this release reads up to 1.x") {
		t.Errorf("status: exit code %d: %s", code, said)
	}
	if code, said := p.do(t, "token", "--resource", "https://vault.azure.net"); code != control.ExitDamaged {
		t.Errorf("token: exit code %d: %s", code, said)
	}
	agent.stop(t)
	if code, said := p.do(t, "adopt", "--hardware-changed"); code == control.ExitDone {
		t.Errorf("adopt: %s", said)
	}
	if after := identityOf(t, p); after != before {
		t.Error("the files were changed")
	}
}

// enrolled is a place whose device has an identity of a site authority, which
// runs; no agent does.
func enrolled(t *testing.T) (place, *process) {
	t.Helper()
	address, release, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	p := newPlace(t, `clock = "trusted"`) // this machine's may not be synchronised
	dir := filepath.Join(p.dir, "ca")
	ca := begin(t, nil, "authority", "run", "--dir", dir, "--listen", address)
	ca.says(t, "site authority on")
	mustDo(t, p, "authority", "resource", "add", "https://vault.azure.net", "--dir", dir)
	claim := firstLine(mustDo(t, p, "authority", "claim", "gw-0042", "--dir", dir))
	connect := begin(t, func(cmd *exec.Cmd) { p.use(cmd); cmd.Stdin = strings.NewReader(claim) }, "connect", "--claim-file", "-")
	if code := connect.exit(t); code != 0 {
		t.Fatal(connect.text())
	}
	return p, ca
}

func (p place) append(t *testing.T, text string) {
	t.Helper()
	raw, err := os.ReadFile(p.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.config, append(raw, text...), 0o644); err != nil { //nolint:gosec // a configuration is public
		t.Fatal(err)
	}
}

// makeNewer makes what a release of the next major schema would have written of
// every head in the files, byte for byte of the same length.
func makeNewer(t *testing.T, dir string) {
	t.Helper()
	head := regexp.MustCompile(`\{"product":"postern","kind":"identity","major":1,[^{}]*"sum":"([0-9a-f]{64})"\}`)
	files, err := filepath.Glob(filepath.Join(dir, "identity*"))
	if err != nil {
		t.Fatal(err)
	}
	changed := 0
	for _, path := range files {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		newer := head.ReplaceAllFunc(raw, func(old []byte) []byte {
			changed++
			sum := head.FindSubmatch(old)[1]
			text := bytes.Replace(bytes.Replace(old, []byte(`"major":1`), []byte(`"major":2`), 1), sum, nil, 1)
			return bytes.Replace(text, []byte(`"sum":""`), fmt.Appendf(nil, `"sum":"%x"`, sha256.Sum256(text)), 1)
		})
		if err := os.WriteFile(path, newer, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if changed == 0 {
		t.Fatalf("no head was found in %q", files)
	}
}

// identityOf is a digest of all bytes that make the identity.
func identityOf(t *testing.T, p place) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(p.dir, "state", "identity*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("there is no identity file: %v", err)
	}
	var all bytes.Buffer
	for _, path := range files {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, "%s %x\n", filepath.Base(path), sha256.Sum256(raw))
	}
	return all.String()
}
