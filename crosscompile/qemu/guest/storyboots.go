//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// patient is how long a step may take in a guest that is emulated on a busy host.
const patient = 120 * time.Second

// first is the boot of a device that was just flashed.
func (s *story) first() error {
	err := s.tell(
		chapter{"clock", s.clock},
		chapter{"start", s.started},
		chapter{"process", s.process},
		chapter{"places", func() (string, error) { return checkPlaces(s.plan.Begin) }},
		chapter{"unenrolled", s.unenrolled},
		chapter{"authority", s.openAuthority},
		chapter{"connect", s.connect},
		chapter{"places-connected", func() (string, error) { return checkPlaces(s.plan.Lasting) }},
		chapter{"token", s.firstToken},
		chapter{"refused", s.refused},
		chapter{"saved", s.saved},
		chapter{"killed", s.killed},
		chapter{"reload-bad", s.reloadBad},
		chapter{"reload", s.reload},
	)
	if err == nil && s.plan.Systemd {
		err = s.systemd()
	}
	if err == nil {
		err = s.tell(chapter{"memory", s.peak}, chapter{"authority-gone", s.closeAuthority})
	}
	return err
}

// offline is the next boot: the authority is not there.
func (s *story) offline() error {
	return s.tell(
		chapter{"clock", s.clock},
		chapter{"start", s.started},
		chapter{"process", s.process},
		chapter{"identity", s.identity},
		chapter{"token", s.sameToken},
		chapter{"refused", s.refused},
		chapter{"killed", s.killed},
		chapter{"token-again", s.sameToken},
		chapter{"memory", s.peak},
	)
}

// past is a boot with a clock of 1970.
func (s *story) past() error {
	return s.tell(
		chapter{"clock", s.clockInThePast},
		chapter{"start", s.started},
		chapter{"untrusted", s.untrusted},
		chapter{"identity", s.identity},
		chapter{"held-back", s.heldBack},
		chapter{"killed", s.killed},
		chapter{"identity-again", s.identity},
		chapter{"memory", s.peak},
	)
}

// again is a boot with the right clock, and the end.
func (s *story) again() error {
	return s.tell(
		chapter{"clock", s.clock},
		chapter{"start", s.started},
		chapter{"identity", s.identity},
		chapter{"token", s.sameToken},
		chapter{"stop", s.stop},
		chapter{"store", s.store},
		chapter{"second-start", s.secondStart},
		chapter{"token-again", s.sameToken},
		chapter{"memory", s.peak},
		chapter{"install-again", s.installAgain},
		chapter{"uninstall", s.uninstall},
		chapter{"found", s.found},
		chapter{"install", s.install},
		chapter{"token-installed", s.sameToken},
	)
}

// hostClock is what the host's clock said when the machine was started.
func hostClock() (time.Time, error) {
	host, err := strconv.ParseInt(bootWord("postern.now"), 10, 64)
	return time.Unix(host, 0), err
}

// clock compares the guest's clock with the host's.
func (s *story) clock() (string, error) {
	now := time.Now()
	host, err := hostClock()
	if err != nil {
		return "", err
	}
	if off := now.Sub(host); off < -time.Minute || off > time.Hour {
		return "", fmt.Errorf("it is %s here, %s away from the host", now.UTC().Format(time.RFC3339), off)
	}
	return now.UTC().Format(time.RFC3339), nil
}

// clockInThePast: systemd moves a clock of 1970 to the day it was built, which
// is as wrong.
func (s *story) clockInThePast() (string, error) {
	now := time.Now().UTC()
	host, err := hostClock()
	if err == nil && now.After(host.Add(-24*time.Hour)) {
		err = fmt.Errorf("it is %s", now.Format(time.RFC3339))
	}
	return now.Format(time.RFC3339), err
}

// started awaits the agent that the init starts by itself.
func (s *story) started() (string, error) {
	if name := comm(1); name != s.plan.PID1 {
		return "", fmt.Errorf("process 1 is %s, want %s", name, s.plan.PID1)
	}
	if err := wait(seconds(s.plan.Patient), answers); err != nil {
		return "", err
	}
	pid := agentPID()
	if pid == 0 {
		return "", errors.New("the port answers, but no agent runs")
	}
	return fmt.Sprintf("pid %d", pid), bothFamilies()
}

// bothFamilies: some clients ask at [::1], which is never left out where the
// machine has it.
func bothFamilies() error {
	sockets, err := os.ReadFile("/proc/net/tcp6")
	if err == nil && !strings.Contains(string(sockets), " 00000000000000000000000001000000:9D96 00000000000000000000000000000000:0000 0A ") { // port 40342, listening
		err = errors.New("nobody listens on [::1]")
	}
	return err
}

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

// answers asks without a key: in every state that is a 401 with a challenge.
func answers() error {
	r, err := arc().get("")
	if err == nil && r.status != 401 {
		err = fmt.Errorf("status %d: %s", r.status, r.body)
	}
	return err
}

func (s *story) process() (string, error) { return checkProcess(agentPID(), s.plan.Parent) }

// status is the part of `postern status --json` that a story looks at.
type status struct {
	State string `json:"state"`
	Ident []struct {
		ClientID string `json:"client_id"`
		NotAfter string `json:"not_after"`
	} `json:"identities"`
	Tokens struct {
		Cached int `json:"cached"`
		Held   int `json:"held_back"`
	} `json:"tokens"`
	Authority struct {
		Last    string `json:"last_contact"`
		Undated bool   `json:"last_contact_undated"`
	} `json:"authority"`
	Clock struct {
		Trusted bool   `json:"trusted"`
		Reason  string `json:"reason"`
	} `json:"clock"`
	Store struct {
		Identity string `json:"identity"`
		Cache    string `json:"cache"`
	} `json:"store"`
	Problem string `json:"problem"`
	Fix     string `json:"fix"`
}

// postern runs a verb of the product; what it prints for people stays apart.
func postern(args ...string) (stdout string, err error) { return verb(agent, args...) }

func verb(program string, args ...string) (stdout string, err error) {
	cmd := exec.Command(program, args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("postern %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return string(out), err
}

// agentStatus reads the document alone: the exit code is the state's.
func agentStatus() (status, error) {
	var st status
	out, err := postern("status", "--json")
	if jerr := json.Unmarshal([]byte(out), &st); jerr != nil {
		return st, errors.Join(jerr, err)
	}
	return st, nil
}

func (s *story) unenrolled() (string, error) {
	st, err := agentStatus()
	if err == nil && st.State != "Unenrolled" {
		err = fmt.Errorf("state %s", st.State)
	}
	return st.State, err
}

func (s *story) openAuthority() (string, error) {
	s.authority = exec.Command(agent, "authority", "run", "--dir", authorityDir)
	s.authority.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := s.authority.Start(); err != nil {
		return "", err
	}
	if err := wait(patient, func() error {
		_, err := postern("authority", "status", "--dir", authorityDir)
		return err
	}); err != nil {
		return "", err
	}
	_, err := postern("authority", "resource", "add", resource, "--dir", authorityDir)
	return "", err
}

const authorityDir = "/var/lib/story-authority"

func (s *story) closeAuthority() (string, error) {
	if err := s.authority.Process.Signal(syscall.SIGTERM); err != nil {
		return "", err
	}
	return "", s.authority.Wait()
}

// connect trades a claim for an identity.
func (s *story) connect() (string, error) {
	claim, err := postern("authority", "claim", "gw-0042", "--dir", authorityDir)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile("/run/claim", []byte(claim), 0o600); err != nil {
		return "", err
	}
	if s.plan.Systemd {
		err = s.connectByCredential(claim)
	} else {
		_, err = postern("connect", "--claim-file", "/run/claim")
	}
	if err != nil {
		return "", err
	}
	st, err := agentStatus()
	if err != nil {
		return "", err
	}
	if st.State != "Connected" || len(st.Ident) != 1 {
		return "", fmt.Errorf("state %s with %d identities", st.State, len(st.Ident))
	}
	s.memory.ClientID, s.memory.NotAfter = st.Ident[0].ClientID, st.Ident[0].NotAfter
	return st.Ident[0].ClientID, s.remember()
}

// identity: nothing is lost, whatever the clock and the link.
func (s *story) identity() (string, error) {
	st, err := agentStatus()
	if err != nil {
		return "", err
	}
	got := fmt.Sprintf("%s, %d to serve, store %s/%s", st.State, st.Tokens.Cached, st.Store.Identity, st.Store.Cache)
	switch {
	case len(st.Ident) != 1 || st.Ident[0].ClientID != s.memory.ClientID || st.Ident[0].NotAfter != s.memory.NotAfter:
		return got, fmt.Errorf("identities are %v, want %s until %s", st.Ident, s.memory.ClientID, s.memory.NotAfter)
	case st.Tokens.Cached != s.usable():
		return got, fmt.Errorf("%d tokens can be served, want %d", st.Tokens.Cached, s.usable())
	case st.Store.Identity != "disk" || st.Store.Cache != "disk":
		return got, errors.New("the store is not on the disk")
	}
	return got, nil
}

// usable is how many tokens an agent can serve: one that is known to live only
// by the wall clock is kept while that is not believed, and not counted.
func (s *story) usable() int {
	if s.memory.ClientID == "" || s.boot == "past" {
		return 0
	}
	return 1
}

// untrusted: the clock of 1970 is not believed, and the words say so.
func (s *story) untrusted() (string, error) {
	st, err := agentStatus()
	if err != nil {
		return "", err
	}
	got := fmt.Sprintf("%s, clock: %s; problem: %s; fix: %s", st.State, st.Clock.Reason, st.Problem, st.Fix)
	if st.State != "ClockUntrusted" || st.Clock.Trusted || st.Clock.Reason == "" || st.Fix == "" {
		return got, errors.New("want ClockUntrusted with a reason and a fix")
	}
	if st.Tokens.Held != 1 || st.Authority.Last != "" || !st.Authority.Undated {
		return got, fmt.Errorf("what is on the disk is taken for nothing: %d tokens held back, last contact %q, undated %t",
			st.Tokens.Held, st.Authority.Last, st.Authority.Undated)
	}
	return got, nil
}
