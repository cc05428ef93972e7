package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestCloudIsKnownByItsFirmware(t *testing.T) {
	dmi := t.TempDir()
	if got := cloudOf(dmi); got != "" {
		t.Errorf("a device without firmware texts is %q", got)
	}
	if err := os.WriteFile(filepath.Join(dmi, "chassis_asset_tag"), []byte("7783-7084-3265-9085-8269-3286-77\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := cloudOf(dmi); got != "an Azure virtual machine" {
		t.Errorf("Azure is %q", got)
	}
}

// TestIMDSRouteComesAndGoes plays it in a network of its own: added twice,
// removed twice.
func TestIMDSRouteComesAndGoes(t *testing.T) {
	for _, program := range []string{"unshare", "ip"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%s is missing: go run ./crosscompile/tests short installs it", program)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("not run: a network of one's own needs root")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "postern") // by this name the test program is the agent
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	script := `
set -e
ip link set lo up
"$0" imds-route add && "$0" imds-route add
ip route show table local | grep -q 'local 169.254.169.254 dev lo' && echo added
"$0" imds-route remove && "$0" imds-route remove
ip route show table local | grep -q 169.254.169.254 || echo removed
`
	out, err := exec.Command("unshare", "-n", "sh", "-c", script, program).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "added") || !strings.Contains(string(out), "removed") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestWhoAnswersIsNotPushedAside: a refused connection is an answer, too.
func TestWhoAnswersIsNotPushedAside(t *testing.T) {
	address, release, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if !connects(t.Context(), address) {
		t.Error("a refusal does not count as an answer")
	}
}
