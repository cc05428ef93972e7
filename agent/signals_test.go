//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
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
