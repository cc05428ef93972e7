//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	unit    = "postern.service"
	dropIns = "/run/systemd/system/postern.service.d"
	// leastExposure is what `systemd-analyze security` of systemd 252 gives the
	// shipped unit where it runs (1.8 with --offline); it may fall and must not grow.
	leastExposure = 1.6
)

// systemd is what only systemd promises.
func (s *story) systemd() error {
	return s.tell(
		chapter{"notify", s.notify},
		chapter{"journal", s.journal},
		chapter{"exposure", s.exposure},
		chapter{"activation", s.activation},
		chapter{"metadata", s.metadata},
		chapter{"mounted", s.mounted},
		chapter{"watchdog", s.watchdog},
	)
}

// show reads one property of the unit.
func show(property string) (string, error) {
	out, err := run([]string{"systemctl", "show", "--property=" + property, "--value", unit}, 0)
	return strings.TrimSpace(out), err
}

// notify: the unit is active because the agent said so, and its words are shown.
func (s *story) notify() (string, error) {
	var all []string
	for _, want := range []struct{ property, value string }{
		{"Type", "notify"},
		{"ActiveState", "active"},
		{"SubState", "running"},
		{"User", "postern"},
		{"MainPID", strconv.Itoa(agentPID())},
		{"WatchdogUSec", "1min"},
	} {
		got, err := show(want.property)
		if err == nil && got != want.value {
			err = fmt.Errorf("%s is %q, want %q", want.property, got, want.value)
		}
		if err != nil {
			return "", err
		}
		all = append(all, want.property+"="+got)
	}
	words := ""
	err := wait(patient, func() (err error) { // until it has heard the authority it says Offline
		if words, err = show("StatusText"); err == nil && !strings.HasPrefix(words, "Connected") {
			err = fmt.Errorf("StatusText is %q", words)
		}
		return err
	})
	memory, merr := show("MemoryCurrent")
	return strings.Join(append(all, "StatusText="+words, "MemoryCurrent="+memory), " "), errors.Join(err, merr)
}

// journal: each line has its severity, and not in its words.
func (s *story) journal() (string, error) {
	out, err := run([]string{"journalctl", "--no-pager", "--output=json", "--identifier=postern"}, 0)
	if err != nil {
		return "", err
	}
	severities := map[string]int{}
	want := map[string]string{"configuration stays as it was": "3", "grants read again": "6", "ready": "6"}
	for line := range strings.Lines(out) {
		var e struct {
			Priority string `json:"PRIORITY"`
			Message  string `json:"MESSAGE"`
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return "", fmt.Errorf("%q: %w", line, err)
		}
		severities[e.Priority]++
		if strings.HasPrefix(e.Message, "<") || strings.Contains(e.Message, "time=") {
			return "", fmt.Errorf("the words hold what the journal knows: %q", e.Message)
		}
		for words, severity := range want {
			if strings.Contains(e.Message, words) {
				if e.Priority != severity {
					return "", fmt.Errorf("%q has severity %s, want %s", e.Message, e.Priority, severity)
				}
				delete(want, words)
			}
		}
	}
	if len(want) > 0 {
		return fmt.Sprint(severities), fmt.Errorf("not in the journal: %v", want)
	}
	return fmt.Sprintf("lines by severity: %v", severities), nil
}

// connectByCredential puts the claim where the shipped unit for it looks:
// systemd hands it over, and no command line has it or its path.
func (s *story) connectByCredential(claim string) error {
	const file, once = "/etc/postern/claim", "postern-connect.service"
	if err := os.WriteFile(file, []byte(claim), 0o600); err != nil {
		return err
	}
	if _, err := run([]string{"systemctl", "start", once}, 0); err != nil {
		words, _ := run([]string{"journalctl", "--no-pager", "--output=cat", "--unit=" + once}, 0)
		return fmt.Errorf("%w: %s", err, words)
	}
	// once more: a device that is connected is left alone
	if _, err := run([]string{"systemctl", "start", once}, 0); err != nil {
		return err
	}
	return os.Remove(file)
}

func (s *story) exposure() (string, error) {
	out, err := run([]string{"systemd-analyze", "security", "--no-pager", unit}, 0)
	if err != nil {
		return "", err
	}
	m := regexp.MustCompile(`exposure level for postern.service: ([0-9.]+)`).FindStringSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("no verdict in %q", tail(out, 300))
	}
	score, err := strconv.ParseFloat(m[1], 64)
	if err == nil && score > leastExposure {
		err = fmt.Errorf("more than %.1f", leastExposure)
	}
	return m[1], err
}

// activation: without the agent the first request starts it.
func (s *story) activation() (string, error) {
	old := agentPID()
	if _, err := run([]string{"systemctl", "stop", unit}, 0); err != nil {
		return "", err
	}
	if pid := agentPID(); pid != 0 {
		return "", fmt.Errorf("agent %d runs after a stop", pid)
	}
	began := time.Now()
	if err := answers(); err != nil { // one request, no second try
		return "", err
	}
	got := "answered after " + time.Since(began).Round(100*time.Millisecond).String()
	if _, err := s.back(old, began); err != nil {
		return got, err
	}
	_, err := s.sameToken()
	return got, err
}

// watchdog: an agent that hangs is replaced. The shipped minute is shortened
// for the time of the test.
func (s *story) watchdog() (string, error) {
	if err := os.MkdirAll(dropIns, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(dropIns+"/watchdog.conf", []byte("[Service]\nWatchdogSec=8\n"), 0o644); err != nil {
		return "", err
	}
	if err := commands([][]string{{"systemctl", "daemon-reload"}, {"systemctl", "restart", unit}}, 0); err != nil {
		return "", err
	}
	before, err := show("NRestarts")
	if err != nil {
		return "", err
	}
	old := agentPID()
	began := time.Now()
	if err := syscall.Kill(old, syscall.SIGSTOP); err != nil {
		return "", err
	}
	err = wait(patient, func() error {
		now, err := show("NRestarts")
		if err == nil && now == before {
			err = errors.New("the agent hangs and is left alone")
		}
		return err
	})
	if err != nil {
		return "", err
	}
	got, err := s.back(old, began)
	if err == nil {
		_, err = s.sameToken()
	}
	if err == nil && !strings.Contains(s.words("watchdog"), "watchdog") {
		err = errors.New("the journal does not say that it was the watchdog")
	}
	return got, errors.Join(err, os.RemoveAll(dropIns), commands([][]string{{"systemctl", "daemon-reload"}}, 0))
}

// words are the lines of the journal about the unit that contain a word.
func (s *story) words(word string) string {
	out, _ := run([]string{"journalctl", "--no-pager", "--output=cat", "--unit=" + unit, "--grep=" + word}, 0)
	return out
}
