//go:build linux

package main

import (
	"encoding/json"
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

// Where a test root keeps what belongs to the story.
const (
	planFile   = "/story/plan.json"
	memoryFile = "/story/memory.json"
	stuckFile  = "/story/stuck"
	agent      = "/usr/bin/postern"
)

// plan is what a story has to know about the init that it plays under. The
// host writes it into the test root. {pid} in a command is the agent's.
type plan struct {
	Parent  string     `json:"parent"` // name of the process that looks after the agent
	PID1    string     `json:"pid1"`
	Stop    [][]string `json:"stop"`
	Start   [][]string `json:"start"`
	Reload  [][]string `json:"reload"`
	Status  []string   `json:"status,omitempty"` // answers as LSB says: 0 running, 1 dead with a pid file, 3 stopped
	Once    bool       `json:"once"`             // the init starts the agent once and does not look after it
	Patient int        `json:"patient"`          // seconds for the first answer
	Again   int        `json:"again"`            // seconds for the first answer of the agent that comes after it
	Off     [][]string `json:"off,omitempty"`    // ends the last boot; without it the machine is switched off
	Log     []string   `json:"log,omitempty"`    // prints the agent's log; without it the log goes to the console
	Handed  bool       `json:"handed"`           // the sockets are the init's, and stay when the agent stops
	Systemd bool       `json:"systemd"`
	Found   string     `json:"found"`     // the init system that install finds by itself
	Install []string   `json:"install"`   // how the board was installed
	Begin   []place    `json:"begin"`     // how things lie as soon as the agent runs
	Lasting []place    `json:"connected"` // and once it has an identity
}

// memories are what one boot leaves to the next.
type memories struct {
	ClientID string `json:"client_id"`
	NotAfter string `json:"not_after"`
	Token    claims `json:"token"`
}

// story is one boot of it.
type story struct {
	plan             plan
	boot             string
	port             *port.Writer
	member, stranger account
	memory           memories
	authority        *exec.Cmd
}

// errStop ends a boot at its first failure: what follows would only fail for
// the same reason.
var errStop = errors.New("a step failed")

// playStory is started by the init of a test root. It plays the boot that the
// kernel's command line names, and powers off.
func playStory([]string) int {
	s := story{boot: bootWord("postern.boot")}
	w, _, err := openPort()
	if err != nil {
		complain(err)
		return powerOff()
	}
	s.port = w
	if err := hello(w, jobID(), "story"); err != nil {
		complain(err)
		return powerOff()
	}
	rc := 0
	if err := s.play(); err != nil {
		rc = 1
		s.evidence(err)
	}
	syscall.Sync()
	_ = w.Say(port.Message{Kind: port.Exit, RC: rc, Up: uptime()})
	if rc == 0 && s.boot == "again" && len(s.plan.Off) > 0 {
		complain(s.shutDown())
	}
	return powerOff()
}

// shutDown has the init end everything, this program too. If it does not, a
// file on the disk tells the host.
func (s *story) shutDown() error {
	err := commands(s.plan.Off, 0)
	if err == nil {
		<-time.After(patient)
		err = fmt.Errorf("the machine still runs after %s", patient)
	}
	return errors.Join(err, os.WriteFile(stuckFile, []byte(err.Error()), 0o644))
}

func (s *story) play() error {
	if err := s.prepare(); err != nil {
		return err
	}
	play, known := map[string]func() error{
		"first": s.first, "offline": s.offline, "past": s.past, "again": s.again,
	}[s.boot]
	if !known {
		return fmt.Errorf("there is no boot %q", s.boot)
	}
	return play()
}

func (s *story) prepare() error {
	content, err := os.ReadFile(planFile)
	if err == nil {
		err = json.Unmarshal(content, &s.plan)
	}
	if err != nil {
		return err
	}
	if s.member, err = lookup("member"); err != nil {
		return err
	}
	if s.stranger, err = lookup("stranger"); err != nil {
		return err
	}
	content, err = os.ReadFile(memoryFile)
	if errors.Is(err, os.ErrNotExist) && s.boot == "first" {
		return nil
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(content, &s.memory)
}

// remember keeps what the next boot compares with.
func (s *story) remember() error {
	content, err := json.Marshal(s.memory)
	if err != nil {
		return err
	}
	return os.WriteFile(memoryFile, content, 0o600)
}

// step says how one step ended.
func (s *story) step(name string, do func() (got string, err error)) error {
	got, err := do()
	if err != nil {
		got = strings.TrimSpace(err.Error() + "; " + got)
	}
	if e := s.port.Say(port.Message{Kind: port.Step, Name: name, OK: err == nil, Up: uptime(), Got: got}); e != nil {
		return e
	}
	if err != nil {
		return errStop
	}
	return nil
}

// chapter is a named step.
type chapter struct {
	name string
	do   func() (string, error)
}

func (s *story) tell(list ...chapter) error {
	for _, c := range list {
		if err := s.step(c.name, c.do); err != nil {
			return err
		}
	}
	return nil
}

// evidence says what may explain a failure.
func (s *story) evidence(err error) {
	say := func(text string) {
		for line := range strings.Lines(text) {
			_ = s.port.Say(port.Message{Kind: port.Out, S: 2, T: strings.TrimRight(line, "\n")})
		}
	}
	say("story: " + err.Error())
	for _, command := range [][]string{s.plan.Log, {"/bin/busybox", "ps"}, {agent, "status"}, {"/bin/busybox", "ls", "-la", "/run", "/run/postern", "/var/lib/postern"}} {
		if len(command) > 0 {
			out, _ := run(command, 0)
			say("$ " + strings.Join(command, " ") + "\n" + tail(out, 8000))
		}
	}
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// run executes a command as root, at most for a minute.
func run(command []string, pid int) (string, error) {
	args := make([]string, len(command))
	for i, a := range command {
		args[i] = strings.ReplaceAll(a, "{pid}", strconv.Itoa(pid))
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C"}
	end := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer end.Stop()
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), err
}

// commands executes several, until one fails.
func commands(list [][]string, pid int) error {
	for _, command := range list {
		if _, err := run(command, pid); err != nil {
			return err
		}
	}
	return nil
}

// wait asks again every 100 ms until ready has no objection.
func wait(limit time.Duration, ready func() error) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(limit); ; <-tick.C {
		err := ready()
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

// bootWord is a word of the kernel's command line: name=value.
func bootWord(name string) string {
	line, _ := os.ReadFile("/proc/cmdline")
	for _, word := range strings.Fields(string(line)) {
		if value, ok := strings.CutPrefix(word, name+"="); ok {
			return value
		}
	}
	return ""
}

// powerOff ends the machine at once, as a switch would; the disk is in order.
func powerOff() int {
	syscall.Sync()
	_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
	return 1
}

// prepareRoot does what a board's early start scripts do, for the inits that
// come without any.
func prepareRoot([]string) int {
	rc := 0
	for _, m := range []port.Mount{
		{Device: "devtmpfs", Dir: "/dev", Type: "devtmpfs"},
		{Device: "proc", Dir: "/proc", Type: "proc"},
		{Device: "sysfs", Dir: "/sys", Type: "sysfs"},
		{Device: "tmpfs", Dir: "/run", Type: "tmpfs", Options: "nosuid,nodev,mode=0755"},
		{Device: "tmpfs", Dir: "/tmp", Type: "tmpfs", Options: "nosuid,nodev,mode=1777"},
	} {
		if mounted(m.Dir) {
			continue
		}
		if err := mount(m, m.Dir); err != nil {
			complain(err)
			rc = 1
		}
	}
	if err := loopback(); err != nil {
		complain(err)
		rc = 1
	}
	return rc
}

func mounted(dir string) bool {
	content, _ := os.ReadFile("/proc/mounts")
	for line := range strings.Lines(string(content)) {
		if f := strings.Fields(line); len(f) > 1 && f[1] == dir {
			return true
		}
	}
	return false
}
