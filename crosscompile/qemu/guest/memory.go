//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"postern/crosscompile/qemu/port"
)

// memoryRun is a whole life in a small machine: authority, agent, a claim, a
// token; then the agent alone, which serves the token that it keeps.
type memoryRun struct{ authority, agent *child }

// child is a process in the background.
type child struct {
	pid  int
	done chan error // how it ended
}

const (
	memoryResource  = "https://vault.azure.net"
	memoryAuthority = "/var/lib/authority"
)

// playMemory is PID 1 of a root on a disk.
func playMemory([]string) int {
	if err := memoryStory(); err != nil {
		complain(err) // no exit line: the host takes that as a failure
	}
	return powerOff()
}

func memoryStory() error {
	for dir, mode := range map[string]string{"/run": "mode=0755", "/tmp": "mode=1777"} {
		if err := mount(port.Mount{Device: "tmpfs", Dir: dir, Type: "tmpfs", Options: "nosuid,nodev," + mode}, dir); err != nil {
			return err
		}
	}
	if err := loopback(); err != nil {
		return err
	}
	w, _, err := openPort()
	if err != nil {
		return err
	}
	if err := hello(w, jobID(), "memory"); err != nil {
		return err
	}
	m := &memoryRun{}
	rc := 0
	for _, c := range []struct {
		name string
		do   func() (string, error)
	}{
		{"authority", m.startAuthority},
		{"agent", m.startAgent},
		{"connect", m.connect},
		{"token", m.token},
		{"together", m.together},
		{"alone", m.alone},
		{"token-offline", m.token},
		{"agent-alone", m.figures},
	} {
		got, err := c.do()
		if err != nil {
			got = err.Error()
		}
		if e := w.Say(port.Message{Kind: port.Step, Name: c.name, OK: err == nil, Got: got, Up: uptime()}); e != nil {
			return e
		}
		if err != nil {
			rc = 1
			break
		}
	}
	return w.Say(port.Message{Kind: port.Exit, RC: rc, Up: uptime()})
}

// start leaves postern running in the background; what it says goes to the console.
func start(args ...string) (*child, error) {
	cmd := exec.Command(agent, args...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &child{pid: cmd.Process.Pid, done: make(chan error, 1)}
	go func() { c.done <- cmd.Wait() }()
	return c, nil
}

// answers asks again until the command succeeds, at most for four minutes, since
// a machine without room is slow first, and while the child lives.
func (c *child) answers(args ...string) (string, error) {
	var out string
	var err error
	await(4*time.Minute, func() bool {
		select {
		case err = <-c.done:
			err = fmt.Errorf("it ended: %w", errors.Join(errors.New("see the console"), err))
			return true
		default:
			out, err = postern(args...)
			return err == nil
		}
	})
	return out, err
}

func (m *memoryRun) startAuthority() (got string, err error) {
	if m.authority, err = start("authority", "run", "--dir", memoryAuthority); err != nil {
		return "", err
	}
	if _, err := m.authority.answers("authority", "status", "--dir", memoryAuthority); err != nil {
		return "", err
	}
	return postern("authority", "resource", "add", memoryResource, "--dir", memoryAuthority)
}

func (m *memoryRun) startAgent() (got string, err error) {
	if m.agent, err = start("run"); err != nil {
		return "", err
	}
	return m.agent.answers("status")
}

func (m *memoryRun) connect() (string, error) {
	claim, err := postern("authority", "claim", "gw-0042", "--dir", memoryAuthority)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile("/run/claim", []byte(claim), 0o600); err != nil {
		return "", err
	}
	if _, err := postern("connect", "--claim-file", "/run/claim"); err != nil {
		return "", err
	}
	return postern("wait", "--for", "connected")
}

func (m *memoryRun) token() (string, error) {
	token, err := postern("token", "--resource", memoryResource)
	if err == nil && strings.Count(token, ".") != 2 {
		return "", errors.New("that is no token")
	}
	return fmt.Sprintf("%d bytes", len(token)), err
}

func (m *memoryRun) together() (string, error) {
	got, err := m.figures()
	hwm, _ := peak(m.authority.pid)
	return fmt.Sprintf("%s authority_hwm_kb=%d", got, hwm), err
}

// alone stops the authority: a device has none.
func (m *memoryRun) alone() (string, error) {
	if err := syscall.Kill(m.authority.pid, syscall.SIGTERM); err != nil {
		return "", err
	}
	return "", <-m.authority.done
}

// figures are what is left of the memory and the most that the agent has had.
func (m *memoryRun) figures() (string, error) {
	hwm, err := peak(m.agent.pid)
	return fmt.Sprintf("total_kb=%d available_kb=%d agent_hwm_kb=%d", memory("MemTotal"), memory("MemAvailable"), hwm), err
}

// peak is VmHWM of a process in kB.
func peak(pid int) (int, error) {
	content, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(content)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "VmHWM:" {
			return strconv.Atoi(fields[1])
		}
	}
	return 0, errors.New("no VmHWM")
}
