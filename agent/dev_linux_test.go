package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postern/platform/platformtest"
)

// TestTrialStandsBesideTheAgentOfThisMachine: the place of the challenges is
// another's, and so are the authority and the proxy of the configuration.
func TestTrialStandsBesideTheAgentOfThisMachine(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not run: a mount namespace needs root; the tier of root plays this")
	}
	dir := platformtest.Dir(t)
	settings := filepath.Join(dir, "postern.toml")
	text := "proxy = \"http://192.0.2.1:3128\"\nuser = \"nobody-of-this-name\"\n[authority]\nurl = \"https://192.0.2.1:8443\"\n"
	if err := os.WriteFile(settings, []byte(text), 0o644); err != nil { //nolint:gosec // a configuration is public
		t.Fatal(err)
	}
	program, err := exec.LookPath("postern")
	if err != nil {
		t.Fatal(err)
	}
	trial := begin(t, func(cmd *exec.Cmd) {
		shell, err := exec.LookPath("sh")
		if err != nil {
			t.Fatal(err)
		}
		cmd.Path, cmd.Env = shell, append(os.Environ(), "POSTERN_CONFIG="+settings)
		cmd.Args = []string{
			"sh", "-c", `mount -t tmpfs -o mode=0755 none /var/opt && mkdir /var/opt/azcmagent && ln -s /elsewhere /var/opt/azcmagent/tokens && exec "$0" "$@"`,
			program, "dev", "--json", "--state-dir", filepath.Join(dir, "trial"),
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	})
	trial.says(t, "note: the Arc flavour is not served, because ")
	if !strings.Contains(trial.text(), `{"ready":true,"endpoint":"","imds":"http://127.0.0.1:`) {
		t.Errorf("it said: %s", trial.text())
	}
	trial.stop(t)
}

// TestTrialThatWasKilledStartsAgain: the clock of this boot has to be confirmed
// anew where no kernel steers it, and the authority to be found where it was.
func TestTrialThatWasKilledStartsAgain(t *testing.T) {
	arc, release, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	dir := platformtest.Dir(t)
	start := func() *process {
		trial := begin(t, nil, "dev", "--json", "--state-dir", filepath.Join(dir, "trial"),
			"--tokens-dir", filepath.Join(dir, "tokens"), "--listen", arc+","+onIPv6(arc))
		trial.says(t, `{"ready":true,`)
		return trial
	}
	killed := start()
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-killed.ended
	if err := os.Remove(filepath.Join(dir, "trial", "dev.json")); err != nil {
		t.Fatal(err)
	}
	again := start()
	if strings.Contains(again.text(), "note: sync") {
		t.Errorf("it said: %s", again.text())
	}
	again.stop(t)
}

// TestTrialRefusesNamesBeforeItMakesAnything keeps a typing error from leaving
// half a trial.
func TestTrialRefusesNamesBeforeItMakesAnything(t *testing.T) {
	dir := filepath.Join(platformtest.Dir(t), "trial")
	trial := begin(t, nil, "dev", "--state-dir", dir, "--user-assigned", "a b")
	if code := trial.exit(t); code != 2 || !strings.Contains(trial.text(), "fix: postern dev --user-assigned telemetry") {
		t.Errorf("exit code %d: %s", code, trial.text())
	}
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("%s was made: %v", dir, err)
	}
}
