package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"postern/agent/control"
)

// TestConfiguredIdentityComesBesideTheDevicesOwn: an authority that keeps no
// assignments makes a certificate for each identity by a claim of its own. A
// second machine's claim stands for it here.
func TestConfiguredIdentityComesBesideTheDevicesOwn(t *testing.T) {
	p, ca := enrolled(t)
	dir := p.dir + "/ca"
	claim := firstLine(mustDo(t, p, "authority", "claim", "meter", "--dir", dir))
	p.append(t, fmt.Sprintf("[[identity]]\nname = \"meter\"\nclient_id = %q\n", subjectOf(t, claim)))
	agent := p.run(t)
	connect := func(claim string, args ...string) (int, string) {
		verb := begin(t, func(cmd *exec.Cmd) { p.use(cmd); cmd.Stdin = strings.NewReader(claim) },
			append([]string{"connect", "--claim-file", "-"}, args...)...)
		return verb.exit(t), verb.text()
	}
	if code, said := connect(claim, "--identity", "valve"); code != control.ExitUsage || !strings.Contains(said, `no [[identity]] "valve"`) {
		t.Errorf("an identity that is not configured: exit code %d: %s", code, said)
	}
	if code, said := connect(claim, "--identity", "meter"); code != control.ExitDone {
		t.Fatalf("exit code %d: %s", code, said)
	}
	for _, selector := range [][]string{nil, {"--client-id", subjectOf(t, claim)}} {
		mustDo(t, p, append([]string{"token", "--resource", "https://vault.azure.net"}, selector...)...)
	}
	again := firstLine(mustDo(t, p, "authority", "claim", "meter", "--reonboard", "--dir", dir))
	if code, said := connect(again); code != control.ExitFailed || !strings.Contains(said, "already connected") {
		t.Errorf("once more: exit code %d: %s", code, said)
	}
	agent.stop(t)
	ca.stop(t)
}

// subjectOf is whom a claim is for.
func subjectOf(t *testing.T, claim string) string {
	t.Helper()
	parts := strings.Split(claim, ".")
	if len(parts) != 3 {
		t.Fatalf("%d parts in a claim", len(parts))
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var said struct {
		Subject string `json:"sub"`
	}
	if err := json.Unmarshal(payload, &said); err != nil || said.Subject == "" {
		t.Fatalf("no subject, %v", err)
	}
	return said.Subject
}
