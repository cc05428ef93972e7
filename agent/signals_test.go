//go:build linux

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postern/agent/control"
)

// TestSIGUSR1WritesTheStateIntoTheLogAndNoSecret looks at an agent that has
// secrets of every kind in its hands.
func TestSIGUSR1WritesTheStateIntoTheLogAndNoSecret(t *testing.T) {
	address, release, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	work, release2, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	defer release2()
	p := newPlace(t, `log_level = "error"`)
	raw, err := os.ReadFile(p.config)
	if err != nil {
		t.Fatal(err)
	}
	workload := "[[workload]]\nname = \"telemetry\"\nlisten = \"" + work + "\"\n"
	if err := os.WriteFile(p.config, append(raw, workload...), 0o644); err != nil { //nolint:gosec // a configuration is public
		t.Fatal(err)
	}
	ca := filepath.Join(p.dir, "ca")
	authority := begin(t, nil, "authority", "run", "--dir", ca, "--listen", address)
	authority.says(t, "site authority on")
	mustDo(t, p, "authority", "resource", "add", "https://vault.azure.net", "--dir", ca)
	claim := firstLine(mustDo(t, p, "authority", "claim", "gw-0042", "--dir", ca))

	agent := begin(t, p.use, "run") // at this level nothing says that it is ready
	agent.await(t, "ready", func() bool { code, _ := p.do(t, "wait", "--timeout", "1s"); return code == 0 })
	connect := begin(t, func(cmd *exec.Cmd) { p.use(cmd); cmd.Stdin = strings.NewReader(claim) }, "connect", "--claim-file", "-")
	if code := connect.exit(t); code != 0 {
		t.Fatal(connect.text())
	}
	token := firstLine(mustDo(t, p, "token", "--resource", "https://vault.azure.net"))
	env := mustDo(t, p, "env", "telemetry", "--format", "dotenv")
	_, secret, _ := strings.Cut(strings.TrimSpace(env), "IDENTITY_HEADER=")
	if secret == "" || len(token) < 100 || len(claim) < 100 {
		t.Fatalf("no secrets to look for: %q, %q, %q", env, token, claim)
	}

	if before := agent.text(); strings.Contains(before, "state-dump") {
		t.Fatalf("a dump that nobody asked for: %s", before)
	}
	if err := agent.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	agent.says(t, "state-dump")
	agent.says(t, "connections=")
	said := agent.text()
	for _, want := range []string{"postern.status/1", "Connected", "gw-0042", "https://vault.azure.net"} {
		if !strings.Contains(said, want) {
			t.Errorf("the dump lacks %s: %s", want, said)
		}
	}
	for what, s := range map[string]string{"token": token, "its signature": token[len(token)-40:], "claim": claim, "workload secret": secret} {
		if strings.Contains(said, s) {
			t.Errorf("the dump holds the %s", what)
		}
	}
	if n := strings.Count(said, "state-dump"); n != 1 {
		t.Errorf("%d dumps for one signal", n)
	}
	agent.stop(t)
	authority.stop(t)
}

// TestSIGHUPReadsRootsAgain: a device is told of another root without a restart,
// and a file that holds none changes nothing.
func TestSIGHUPReadsRootsAgain(t *testing.T) {
	p := newPlace(t, `clock = "trusted"`)
	roots, ca := filepath.Join(p.dir, "roots.pem"), filepath.Join(p.dir, "ca")
	text, err := os.ReadFile(p.config)
	if err == nil {
		err = os.WriteFile(p.config, []byte(string(text)+"[token]\nroots = \""+roots+"\"\n"), 0o644) //nolint:gosec // a configuration is public
	}
	if err != nil {
		t.Fatal(err)
	}
	pemOf := func(dir string) string {
		address, release, err := freePort()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(release)
		begin(t, nil, "authority", "run", "--dir", dir, "--listen", address).says(t, "site authority on")
		var info struct {
			Root string `json:"root_pem"`
		}
		if err := json.Unmarshal([]byte(mustDo(t, p, "authority", "status", "--dir", dir, "--json")), &info); err != nil {
			t.Fatal(err)
		}
		return info.Root
	}
	write := func(text string) {
		if err := os.WriteFile(roots, []byte(text), 0o644); err != nil { //nolint:gosec // a certificate is public
			t.Fatal(err)
		}
	}
	ours, foreign := pemOf(ca), pemOf(filepath.Join(p.dir, "another"))
	mustDo(t, p, "authority", "resource", "add", "https://vault.azure.net", "--dir", ca)
	write(ours)
	mustDo(t, p, "connect", "--claim-file", claimFile(t, p, "gw-0042"))

	write(foreign)
	agent := p.run(t)
	ask := []string{"token", "--resource", "https://vault.azure.net", "--refresh"}
	if code, said := p.do(t, ask...); code != control.ExitOffline {
		t.Fatalf("with a foreign root: %d: %s", code, said)
	}
	write(ours)
	hup := func() {
		if err := agent.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	hup()
	agent.says(t, "and roots")
	mustDo(t, p, ask...)

	write("not a certificate")
	hup()
	agent.says(t, "stays as it was")
	mustDo(t, p, ask...)
	agent.stop(t)
}

func mustDo(t *testing.T, p place, args ...string) string {
	t.Helper()
	code, said := p.do(t, args...)
	if code != 0 {
		t.Fatalf("%q ended with %d: %s", args, code, said)
	}
	return said
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
