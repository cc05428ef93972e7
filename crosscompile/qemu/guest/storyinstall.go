//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"
)

// carried is the program as somebody brings it to a device.
const carried = "/story/postern"

// installation is what the product says that it does, or would do.
type installation struct {
	Init  string    `json:"init"`
	Steps []oneStep `json:"steps"`
}

type oneStep struct {
	Do   string `json:"do"`
	Path string `json:"path"`
}

func installs(program string, args ...string) (installation, error) {
	var said installation
	out, err := verb(program, append([]string{"install", "--json"}, args...)...)
	if err != nil {
		return said, err
	}
	return said, json.Unmarshal([]byte(out), &said)
}

// installAgain: where all is in order nothing is changed, and the agent runs on.
func (s *story) installAgain() (string, error) {
	pid := agentPID()
	said, err := installs(agent)
	if err != nil {
		return "", err
	}
	for _, step := range said.Steps {
		if step.Do != "unchanged" && step.Do != "run" {
			return "", fmt.Errorf("a second installation did %s with %s", step.Do, step.Path)
		}
	}
	if now := agentPID(); now != pid {
		return "", fmt.Errorf("agent %d became %d", pid, now)
	}
	return fmt.Sprintf("%d steps", len(said.Steps)), answers()
}

// uninstall: the agent is stopped, its files are gone, and the identity stays.
func (s *story) uninstall() (string, error) {
	if _, err := run([]string{"/bin/busybox", "cp", agent, carried}, 0); err != nil {
		return "", err
	}
	if _, err := run([]string{carried, "uninstall"}, 0); err != nil {
		return "", err
	}
	if pid := agentPID(); pid != 0 {
		return "", fmt.Errorf("agent %d runs", pid)
	}
	if _, err := arc().dial(); !errors.Is(err, syscall.ECONNREFUSED) {
		return "", fmt.Errorf("the port: %w", err)
	}
	for _, path := range []string{agent, "/etc/profile.d/postern.sh", "/opt/azcmagent/bin/himds", "/var/opt/azcmagent/tokens"} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("%s is still there (%w)", path, err)
		}
	}
	_, err := os.Lstat(stateDir + "/identity.json")
	return "", err
}

// found: the init system is found by what runs here, and by nothing else.
func (s *story) found() (string, error) {
	said, err := installs(carried, "--dry-run")
	if err == nil && said.Init != s.plan.Found {
		err = fmt.Errorf("want %s", s.plan.Found)
	}
	return said.Init, err
}

// install: the program that was carried here installs itself, and the init
// starts it without a restart of the machine.
func (s *story) install() (string, error) {
	began := time.Now()
	said, err := installs(carried, s.plan.Install...)
	if err != nil {
		return "", err
	}
	made := slices.DeleteFunc(said.Steps, func(step oneStep) bool { return step.Do != "make" })
	took, err := s.back(0, began)
	if err != nil {
		return took, err
	}
	got, err := s.process()
	return fmt.Sprintf("%d things made, %s; %s", len(made), took, got), err
}
