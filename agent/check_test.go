//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/agent/authority"
	"postern/agent/control"
	"postern/agent/lifecycle"
	"postern/platform"
)

// TestEachCheckHasItsPageAndEachPageItsCheck keeps the links of fix lines alive.
func TestEachCheckHasItsPageAndEachPageItsCheck(t *testing.T) {
	var ids, pages []string
	for _, c := range checks() {
		ids = append(ids, c.id)
	}
	files, err := filepath.Glob("../firmware-notes/checks/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		id := strings.TrimSuffix(filepath.Base(path), ".md")
		pages = append(pages, id)
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if lines := bytes.Count(raw, []byte("\n")); lines < 5 || lines > 12 || !bytes.HasPrefix(raw, []byte("# "+id+"\n")) {
			t.Errorf("%s has %d lines, want 5 to 12 under its id", path, lines)
		}
	}
	slices.Sort(ids)
	slices.Sort(pages)
	if !slices.Equal(ids, pages) {
		t.Errorf("checks: %q\npages:  %q", ids, pages)
	}
	if unique := slices.Compact(slices.Clone(ids)); len(unique) != len(ids) {
		t.Error("an id stands twice in the table")
	}
}

// TestCheckNeverLeavesAProblemWithoutACommand asks everything in two worlds.
func TestCheckNeverLeavesAProblemWithoutACommand(t *testing.T) {
	for _, args := range [][]string{
		{"--state-dir", filepath.Join(t.TempDir(), "nothing")},
		{"--config", filepath.Join(t.TempDir(), "missing.toml")},
	} {
		var stdout, stderr bytes.Buffer
		run(t.Context(), append([]string{"check", "--json"}, args...), strings.NewReader(""), &stdout, &stderr)
		var report checkReport
		if err := json.Unmarshal(stdout.Bytes(), &report); err != nil {
			t.Fatalf("%v: %s%s", err, stdout.String(), stderr.String())
		}
		if report.Schema != "postern.check/1" || len(report.Checks) != len(checks()) {
			t.Errorf("%s: %d lines, want %d", report.Schema, len(report.Checks), len(checks()))
		}
		for _, line := range report.Checks {
			if (line.Status == passed) != (line.Fix == "") || line.Message == "" {
				t.Errorf("%s: %s %q, fix %q", line.ID, line.Status, line.Message, line.Fix)
			}
		}
	}
}

func TestUnknownCheckIsNamedWithTheNearestOne(t *testing.T) {
	_, err := chooseChecks(checkFlags{only: []string{"clock-trustd"}})
	if f := control.AsFault(err); f == nil || f.Exit != control.ExitUsage || !strings.Contains(f.Message, "clock-trusted") {
		t.Errorf("got %v", err)
	}
	chosen, err := chooseChecks(checkFlags{only: []string{"entropy", "watchdog"}, skip: []string{"watchdog"}})
	if err != nil || len(chosen) != 1 || chosen[0].id != "entropy" {
		t.Errorf("got %v, %v", chosen, err)
	}
}

func TestCheckSaysNothingWorseThanItsTable(t *testing.T) {
	one := check{id: "x", worst: warning, run: func(context.Context, *facts) finding { return bad("fix", "bad") }}
	if line := ask(t.Context(), one, &facts{}); line.Status != warning {
		t.Errorf("got %s, want a warning", line.Status)
	}
	one.id = "config-valid"
	if line := ask(t.Context(), check{id: "other"}, &facts{configErr: errors.New("no")}); line.Status != skipped {
		t.Errorf("a check was asked without a configuration: %v", line)
	}
}

// connected is a healthy agent's status.
func connected(now time.Time) control.Status {
	return control.Status{
		State: lifecycle.Connected, Now: now, Watchdog: 60, Sandbox: "landlock 7",
		Identities: []control.Identity{{
			Name: "gw", State: lifecycle.Connected, ClientID: "c", Key: "file",
			NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(89 * 24 * time.Hour), RenewAt: now.Add(40 * 24 * time.Hour),
		}},
		Clock:    control.Clock{Trusted: true, Reason: "synchronised", Floor: now.Add(-time.Hour)},
		Store:    control.Store{Identity: "disk", Cache: "disk", Protection: "tpm"},
		Endpoint: control.Endpoint{Arc: []string{"127.0.0.1:40342"}, Watch: "inotify"},
	}
}

// TestEachCheckSeesItsFault changes one fact of a healthy device at a time.
func TestEachCheckSeesItsFault(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	host, err := newHost(platform.Options{StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	first := func(s *control.Status) *control.Identity { return &s.Identities[0] }
	for _, c := range []struct {
		id    string
		want  verdict
		spoil func(*control.Status)
	}{
		{"identity-readable", failed, func(s *control.Status) { s.Store.Identity = "damaged" }},
		{"certificate-life", warning, func(s *control.Status) { first(s).NotAfter = now.Add(2 * time.Hour) }},
		{"certificate-life", failed, func(s *control.Status) { first(s).NotAfter = now.Add(-time.Hour) }},
		{"certificate-life", warning, func(s *control.Status) { first(s).NotAfter = time.Time{} }},
		{"renewal-overdue", warning, func(s *control.Status) { first(s).RenewAt = now.Add(-2 * time.Hour) }},
		{"renewal-overdue", failed, func(s *control.Status) { first(s).RenewAt = now.Add(-100 * 24 * time.Hour) }},
		{"key-certificate-match", failed, func(s *control.Status) { first(s).Exposed = "uid 1001" }},
		{"key-certificate-match", failed, func(s *control.Status) { first(s).State = lifecycle.Damaged }},
		{"key-certificate-match", failed, func(s *control.Status) { first(s).Key = "" }},
		{"key-protection", warning, func(s *control.Status) { s.Store.Protection = "file" }},
		{"hardware-fingerprint", failed, func(s *control.Status) { s.State = lifecycle.Moved }},
		{"clock-trusted", warning, func(s *control.Status) { s.Clock.Trusted = false }},
		{"clock-floor", warning, func(s *control.Status) { s.Clock.Floor = now.Add(time.Minute) }},
		{"store-size", warning, func(s *control.Status) { s.Store.Bytes = wantedBytes + 1 }},
		{"flash-wear", warning, func(s *control.Status) { s.Store.WrittenBytes = wantedDaily + 1 }},
		{"port-owner", failed, func(s *control.Status) { s.Endpoint.Arc = nil }},
		{"port-owner", failed, func(s *control.Status) { s.Endpoint.Problem = "replaced" }},
		{"watchdog", warning, func(s *control.Status) { s.Watchdog = 0 }},
		{"inotify", warning, func(s *control.Status) { s.Endpoint.Watch = "polling: no instances" }},
		{"sandbox", warning, func(s *control.Status) { s.Sandbox = "none" }},
	} {
		at := slices.IndexFunc(checks(), func(x check) bool { return x.id == c.id })
		if at < 0 {
			t.Fatalf("there is no check %s", c.id)
		}
		f := &facts{status: connected(now), known: true, running: true, host: host}
		if line := ask(t.Context(), checks()[at], f); line.Status != passed {
			t.Errorf("%s on a healthy device: %s %s", c.id, line.Status, line.Message)
		}
		c.spoil(&f.status)
		if line := ask(t.Context(), checks()[at], f); line.Status != c.want || line.Fix == "" {
			t.Errorf("%s: %s %q (fix %q), want %s", c.id, line.Status, line.Message, line.Fix, c.want)
		}
	}
}

// TestAuthorityChecksTellWhereTheCallBroke: one call, four answers.
func TestAuthorityChecksTellWhereTheCallBroke(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		probe control.Probe
		want  [5]verdict // reach, tls, answer, clock, proxy
	}{
		{control.Probe{Done: true, URL: "https://ca"}, [5]verdict{passed, passed, passed, passed, passed}},
		{control.Probe{Done: true, Stage: authority.StageConnect}, [5]verdict{warning, skipped, skipped, skipped, passed}},
		{control.Probe{Done: true, Stage: authority.StageProxy, Proxy: "http://proxy:3128"}, [5]verdict{skipped, skipped, skipped, skipped, failed}},
		{control.Probe{Done: true, Stage: authority.StageTLS, URL: "https://ca:8443"}, [5]verdict{passed, failed, skipped, skipped, passed}},
		{control.Probe{Done: true, Stage: authority.StageAnswer}, [5]verdict{passed, passed, failed, skipped, passed}},
		{control.Probe{Done: true, Skew: 301}, [5]verdict{passed, passed, passed, failed, passed}},
		{control.Probe{Error: "not allowed"}, [5]verdict{skipped, skipped, skipped, skipped, skipped}},
	} {
		calls := 0
		f := &facts{status: connected(now), known: true, running: true, ask: func(context.Context) (control.Probe, error) {
			calls++
			return c.probe, nil
		}}
		for i, one := range authorityChecks() {
			if line := ask(t.Context(), one, f); line.Status != c.want[i] {
				t.Errorf("%+v: %s is %s (%s), want %s", c.probe, one.id, line.Status, line.Message, c.want[i])
			}
		}
		if calls != 1 {
			t.Errorf("the authority was called %d times", calls)
		}
	}
}

// TestProxyCredentialsThatOthersCanReadAreNotUsed: the proxy's 407 would hide
// that.
func TestProxyCredentialsThatOthersCanReadAreNotUsed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "proxy")
	if err := os.WriteFile(file, []byte("user:password"), 0o644); err != nil { //nolint:gosec // the fault that is looked for
		t.Fatal(err)
	}
	f := &facts{status: connected(time.Now()), known: true, running: true, ask: func(context.Context) (control.Probe, error) {
		return control.Probe{Done: true, Proxy: "http://proxy:3128"}, nil
	}}
	f.cfg.ProxyCredentialsFile = file
	if found := checkProxy(t.Context(), f); found.verdict != failed || found.fix != "chmod 600 "+file || strings.Contains(found.text, "password") {
		t.Errorf("got %+v", found)
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if found := checkProxy(t.Context(), f); found.verdict != passed {
		t.Errorf("got %+v", found)
	}
}

// TestUnitsThatAreNotOfThisVersionAreSeen looks at a tree into which install
// wrote.
func TestUnitsThatAreNotOfThisVersionAreSeen(t *testing.T) {
	for init, file := range map[string]string{"systemd": "/usr/lib/systemd/system/postern.service", "busybox": "/etc/inittab"} {
		tree, program := t.TempDir(), filepath.Join(t.TempDir(), "program")
		for path, text := range map[string]string{program: "program\n", tree + "/etc/passwd": "", tree + "/etc/group": "", tree + "/etc/inittab": ""} {
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil { //nolint:gosec // a system's tree
				t.Fatal(err)
			}
		}
		if found := unitsIn(tree); found.verdict != skipped || found.fix == "" {
			t.Errorf("nothing was installed: %+v", found)
		}
		var out bytes.Buffer
		if code := run(t.Context(), []string{"install", "--root", tree, "--init", init, "--binary", program}, strings.NewReader(""), &out, &out); code != 0 {
			t.Fatalf("install: %d: %s", code, out.String())
		}
		if found := unitsIn(tree); found.verdict != passed {
			t.Errorf("%s after install: %+v", init, found)
		}
		if err := os.WriteFile(tree+file, []byte("# another version\n"), 0o644); err != nil { //nolint:gosec // a system's file
			t.Fatal(err)
		}
		if found := unitsIn(tree); found.verdict != warning || !strings.Contains(found.text, file) || found.fix == "" {
			t.Errorf("%s with a changed file: %+v", init, found)
		}
		if code := run(t.Context(), []string{"uninstall", "--root", tree}, strings.NewReader(""), &out, &out); code != 0 {
			t.Fatalf("uninstall: %d: %s", code, out.String())
		}
		if found := unitsIn(tree); found.verdict != skipped {
			t.Errorf("%s after an uninstall that kept the state: %+v", init, found)
		}
	}
}

func TestProxyBeforeLocalhostIsSeen(t *testing.T) {
	for _, name := range []string{"http_proxy", "ALL_PROXY", "all_proxy", "no_proxy"} {
		t.Setenv(name, "")
	}
	t.Setenv("HTTP_PROXY", "http://proxy:3128")
	for except, want := range map[string]verdict{
		"": warning, "localhost": warning, "example.com": warning,
		"localhost,127.0.0.1,::1,169.254.169.254": passed, "*": passed, "localhost, 127.0.0.1": passed,
	} {
		t.Setenv("NO_PROXY", except)
		if got := checkProxyLoopback(t.Context(), nil); got.verdict != want {
			t.Errorf("NO_PROXY=%q: %s, want %s", except, got.verdict, want)
		}
	}
}

// TestASecondTrialFindsPortsOfItsOwn keeps two trials apart.
func TestASecondTrialFindsPortsOfItsOwn(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	taken := l.Addr().String()
	if got := freeOr(taken); got == taken || !strings.HasPrefix(got, "127.0.0.1:") {
		t.Errorf("%s is taken, and got %s", taken, got)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := freeOr(taken); got != taken {
		t.Errorf("%s is free, and got %s", taken, got)
	}
}
