package initfiles

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// tool is the path of a program without which nothing is known here.
func tool(t *testing.T, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing, of the Debian package %s: go run ./crosscompile/tests short installs it", name, pkg)
	}
	return path
}

func shipped(t *testing.T, name string) string {
	t.Helper()
	content, err := File(name, Binary)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// units lays the units down in a tree of their own.
func units(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	entries, err := fs.ReadDir(files, "systemd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		path := filepath.Join(dir, "usr/lib/systemd/system", e.Name())
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(shipped(t, "systemd/"+e.Name())), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestUnitStaysHardened: 1.8 of systemd 252 was measured, an unhardened unit
// has 9.6. The settings that would bring it lower break the agent; the unit
// says which.
func TestUnitStaysHardened(t *testing.T) {
	analyze := tool(t, "systemd-analyze", "systemd")
	out, err := exec.Command(analyze, "security", "--offline=true", "--threshold=18", "--no-pager", "--root="+units(t), "postern.service").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m := regexp.MustCompile(`Overall exposure level for postern\.service: ([0-9.]+)`).FindSubmatch(out)
	if m == nil {
		t.Fatalf("no score in:\n%s", out)
	}
	t.Logf("exposure of postern.service: %s", m[1])
	if got := string(m[1]); got != "1.8" {
		t.Errorf("the exposure is %s, published is 1.8", got)
	}
}

// TestUnitsAreUnderstood: systemd ignores what it does not know, and only
// says so.
func TestUnitsAreUnderstood(t *testing.T) {
	analyze := tool(t, "systemd-analyze", "systemd")
	dir := units(t)
	for _, program := range []string{"usr/bin/postern", "bin/kill"} {
		path := filepath.Join(dir, program)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, target := range []string{"sysinit", "basic", "sockets", "shutdown", "multi-user", "network-online", "time-sync", "local-fs", "network-pre", "umount", "local-fs-pre"} {
		path := filepath.Join(dir, "usr/lib/systemd/system", target+".target")
		if err := os.WriteFile(path, []byte("[Unit]\nDescription="+target+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, slice := range []string{"system.slice", "-.slice"} {
		if err := os.WriteFile(filepath.Join(dir, "usr/lib/systemd/system", slice), []byte("[Slice]\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	names := []string{"postern.service", "postern.socket", "postern-control.socket", "postern-imds.socket", "postern-imds.service", "var-opt-azcmagent-tokens.mount"}
	out, err := exec.Command(analyze, append([]string{"verify", "--man=no", "--root=" + dir}, names...)...).CombinedOutput()
	if err != nil || len(strings.TrimSpace(string(out))) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	broken := filepath.Join(dir, "usr/lib/systemd/system/postern.service")
	if err := os.WriteFile(broken, []byte(strings.Replace(shipped(t, "systemd/postern.service"), "UMask=", "Umsak=", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	out, _ = exec.Command(analyze, "verify", "--man=no", "--root="+dir, "postern.service").CombinedOutput()
	if !strings.Contains(string(out), "Umsak") {
		t.Errorf("a misspelt setting was not noticed: %s", out)
	}
}

// TestScriptsAreForAnyShell asks the two shells that devices have, and
// shellcheck, which knows what others would not understand.
func TestScriptsAreForAnyShell(t *testing.T) {
	busybox, check := tool(t, "busybox", "busybox-static"), tool(t, "shellcheck", "shellcheck")
	for _, name := range []string{"sysvinit/postern", "openrc/postern", "runit/run", "runit/log/run", "s6/run"} {
		path := filepath.Join(t.TempDir(), "script")
		if err := os.WriteFile(path, []byte(shipped(t, name)), 0o644); err != nil {
			t.Fatal(err)
		}
		commands := [][]string{{"sh", "-n", path}, {busybox, "sh", "-n", path}, {check, "--shell=sh", path}}
		if strings.HasPrefix(name, "openrc/") { // its variables are read by OpenRC
			commands[2] = []string{check, "--shell=sh", "--exclude=SC2034", path}
		}
		for _, argv := range commands {
			if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
				t.Errorf("%s: %s: %v\n%s", name, strings.Join(argv, " "), err, out)
			}
		}
	}
}

// TestUnitSaysWhatItMustNotSay: these settings are better by the score and
// make the agent blind (see the unit).
func TestUnitSaysWhatItMustNotSay(t *testing.T) {
	unit := shipped(t, "systemd/postern.service")
	for _, line := range []string{
		"PrivateUsers=no", "ProtectClock=no", "ProcSubset=all", "RuntimeDirectoryPreserve=yes", "StartLimitIntervalSec=0", "Restart=always",
		"RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK", "SystemCallFilter=adjtimex clock_adjtime clock_adjtime64", "Alias=himdsd.service",
		"Type=notify", "WatchdogSec=60", "MemoryMax=48M",
	} {
		if !strings.Contains(unit, "\n"+line+"\n") {
			t.Errorf("postern.service lacks the line %s", line)
		}
	}
	for _, word := range []string{"DynamicUser", "Requires="} {
		if strings.Contains(unit, word) {
			t.Errorf("postern.service says %s", word)
		}
	}
	for _, name := range []string{"systemd/postern.socket", "systemd/postern-imds.socket"} {
		if s := shipped(t, name); !strings.Contains(s, "\nBindToDevice=lo\n") || !strings.Contains(s, "\nFreeBind=yes\n") {
			t.Errorf("%s could be asked by the network, or fails without IPv6", name)
		}
	}
}

func TestFilesNameTheProgramWhereItIs(t *testing.T) {
	for _, name := range []string{"systemd/postern.service", "openrc/postern", "sysvinit/postern", "sysvinit/inittab", "busybox/inittab", "runit/run", "s6/run"} {
		content, err := File(name, "/opt/postern/bin/postern")
		if err != nil {
			t.Fatal(err)
		}
		if s := string(content); strings.Contains(s, "/usr/bin/postern") || !strings.Contains(s, "/opt/postern/bin/postern") {
			t.Errorf("%s does not follow the program to another place", name)
		}
	}
	if _, err := File("systemd/none", Binary); err == nil {
		t.Error("a file that is not shipped was found")
	}
}
