package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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

// TestRootIsFoundByItsFingerprintOrInItsFile: people copy fingerprints from
// openssl, and some authorities' claims carry none.
func TestRootIsFoundByItsFingerprintOrInItsFile(t *testing.T) {
	address, release, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	p := newPlace(t, `clock = "trusted"`)
	dir := filepath.Join(p.dir, "ca")
	ca := begin(t, nil, "authority", "run", "--dir", dir, "--listen", address)
	ca.says(t, "site authority on")
	var site struct {
		PEM    string `json:"root_pem"`
		SHA256 string `json:"root_sha256"`
	}
	if err := json.Unmarshal([]byte(mustDo(t, p, "authority", "status", "--json", "--dir", dir)), &site); err != nil {
		t.Fatal(err)
	}
	claim := firstLine(mustDo(t, p, "authority", "claim", "gw-0042", "--dir", dir))
	connect := func(claim string, args ...string) (int, string) {
		verb := begin(t, func(cmd *exec.Cmd) { p.use(cmd); cmd.Stdin = strings.NewReader(claim) },
			append([]string{"connect", "--claim-file", "-"}, args...)...)
		return verb.exit(t), verb.text()
	}
	fields := claimed(t, claim)
	delete(fields, "sha")
	raw, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(claim, ".")
	bare := parts[0] + "." + base64.RawURLEncoding.EncodeToString(raw) + "." + parts[2] // no authority takes it, its signature is over another text
	if code, said := connect(bare); code != control.ExitUsage || !strings.Contains(said, "does not carry the fingerprint") {
		t.Errorf("without any root: exit code %d: %s", code, said)
	}
	file := filepath.Join(p.dir, "root.pem")
	if err := os.WriteFile(file, []byte(site.PEM), 0o600); err != nil {
		t.Fatal(err)
	}
	p.append(t, fmt.Sprintf("[authority]\nca_file = %q\n", file))
	if code, said := connect(bare); code != control.ExitRejected || !strings.Contains(said, "the authority's root is the one in "+file) {
		t.Errorf("with the root in a file: exit code %d: %s", code, said)
	}
	var colons []string
	for i := 0; i < len(site.SHA256); i += 2 {
		colons = append(colons, strings.ToUpper(site.SHA256[i:i+2]))
	}
	if code, said := connect(claim, "--root-sha256", strings.Join(colons, ":")); code != control.ExitDone {
		t.Errorf("with a fingerprint as openssl prints it: exit code %d: %s", code, said)
	}
	ca.stop(t)
}

// subjectOf is whom a claim is for.
func subjectOf(t *testing.T, claim string) string {
	t.Helper()
	subject, _ := claimed(t, claim)["sub"].(string)
	if subject == "" {
		t.Fatal("the claim is for nobody")
	}
	return subject
}

// claimed is what a claim says.
func claimed(t *testing.T, claim string) (fields map[string]any) {
	t.Helper()
	parts := strings.Split(claim, ".")
	if len(parts) != 3 {
		t.Fatalf("%d parts in a claim", len(parts))
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(payload, &fields); err != nil {
		t.Fatal(err)
	}
	return fields
}
