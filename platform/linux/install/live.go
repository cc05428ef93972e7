//go:build linux

package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Live is the running system: its own tools make accounts, and its init system
// starts and stops the agent. None of it is for a tree.
type Live struct {
	Init    string // one of Inits
	Running bool   // it runs here: otherwise nothing is started
	Service string // directory that runit or s6 watches
	Binary  string // the program as installed

	// Run runs a command; nil runs it for real. Has reports whether the
	// program exists; nil looks in PATH. For tests.
	Run func(ctx context.Context, argv ...string) error
	Has func(program string) bool
}

func (l Live) run(ctx context.Context, argv ...string) error {
	if l.Run != nil {
		return l.Run(ctx, argv...)
	}
	program, err := find(argv[0])
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, argv[1:]...)
	cmd.Env = append(os.Environ(), "PATH="+strings.Join(systemPath(), ":")+":"+os.Getenv("PATH"))
	words, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, bytes.TrimSpace(words))
	}
	return nil
}

func (l Live) has(program string) bool {
	if l.Has != nil {
		return l.Has(program)
	}
	_, err := find(program)
	return err == nil
}

// systemPath is where programs of the system are. PATH comes after it: su
// leaves it as the user had it, without /usr/sbin and with what the user likes.
func systemPath() []string {
	return []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin"}
}

func find(program string) (string, error) {
	if !strings.Contains(program, "/") {
		for _, dir := range systemPath() {
			if path, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
				return path, nil
			}
		}
	}
	return exec.LookPath(program)
}

// ErrNoTool means that the system has no program that makes accounts.
var ErrNoTool = errors.New("there is neither systemd-sysusers nor useradd nor adduser here")

// AddAccount makes the user or group by the system's own tool. uid and gid
// are pinned numbers, or -1.
func (l Live) AddAccount(ctx context.Context, name string, uid, gid int) error {
	group := name == GroupName
	id := uid
	if group {
		id = gid
	}
	pin := func(flag string) []string {
		if id < 0 {
			return nil
		}
		return []string{flag, strconv.Itoa(id)}
	}
	switch {
	case l.has("systemd-sysusers"):
		number := "-"
		if id >= 0 {
			number = strconv.Itoa(id)
		}
		line := fmt.Sprintf("g %s %s", GroupName, number)
		if !group {
			line = fmt.Sprintf("u %s %s:%s %q /nonexistent", UserName, number, GroupName, gecos)
		}
		return l.run(ctx, "systemd-sysusers", "--inline", line)
	case group && l.has("groupadd"):
		return l.run(ctx, append(append([]string{"groupadd", "--system"}, pin("--gid")...), GroupName)...)
	case group && l.has("addgroup"):
		return l.run(ctx, append(append([]string{"addgroup", "-S"}, pin("-g")...), GroupName)...)
	case !group && l.has("useradd"):
		argv := append([]string{"useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/bin/false", "--comment", gecos, "--gid", GroupName}, pin("--uid")...)
		return l.run(ctx, append(argv, UserName)...)
	case !group && l.has("adduser"): // busybox: Debian's adduser comes with useradd
		argv := append([]string{"adduser", "-S", "-D", "-H", "-h", "/nonexistent", "-s", "/bin/false", "-g", gecos, "-G", GroupName}, pin("-u")...)
		return l.run(ctx, append(argv, UserName)...)
	}
	return ErrNoTool
}

// RemoveAccount removes the user or group by the system's own tool.
func (l Live) RemoveAccount(ctx context.Context, name string) error {
	tools := []string{"userdel", "deluser"}
	if name == GroupName {
		tools = []string{"groupdel", "delgroup"}
	}
	for _, tool := range tools {
		if l.has(tool) {
			return l.run(ctx, tool, name)
		}
	}
	return fmt.Errorf("there is neither %s here", strings.Join(tools, " nor "))
}

// units are all units of ours that are there, in the order in which they are
// stopped: what wants the service, or a request on a socket, would start it
// again. One that is gone, since a run was stopped, makes systemctl fail.
func (p *Plan) units() []string {
	list := []string{"postern-connect.service", "postern.socket", "postern-control.socket", "postern-imds.socket", "postern-imds.service", "postern.service", mountUnit}
	return slices.DeleteFunc(list, func(unit string) bool {
		return !p.root.there("/usr/lib/systemd/system/"+unit) && !p.root.there("/etc/systemd/system/"+unit)
	})
}

// optional are the units that an operator may have enabled.
func optional(unit string) bool {
	return unit == "postern-connect.service" || unit == "postern-imds.socket"
}

// Start lists the commands that make the init system start the agent, or
// start it again after p changed what it runs.
func (l Live) Start(p *Plan) [][]string {
	if !l.Running {
		return nil
	}
	binary := p.touches(l.Binary)
	switch l.Init {
	case "systemd":
		return l.startSystemd(p, binary)
	case "openrc":
		return [][]string{{"rc-service", "postern", verb(binary || p.touches("/etc/init.d/postern"))}}
	case "sysvinit":
		return [][]string{{"/etc/init.d/postern", verb(binary || p.touches("/etc/init.d/postern"))}}
	case "inittab", "busybox":
		return [][]string{l.reread()}
	case "runit":
		if !p.touches(l.Service+"/postern") && (binary || p.touches("/etc/sv/postern/run")) {
			return [][]string{{"sv", "restart", "/etc/sv/postern"}}
		}
	case "s6":
		list := [][]string{{"s6-svscanctl", "-a", l.Service}}
		if p.touches(l.Service + "/postern") {
			return append([][]string{forgetS6()}, list...)
		}
		if binary || p.touches("/etc/s6/sv/postern/run") {
			list = append(list, []string{"s6-svc", "-r", l.Service + "/postern"})
		}
		return list
	}
	return nil
}

func (l Live) startSystemd(p *Plan, changed bool) [][]string {
	list := [][]string{{"systemctl", "daemon-reload"}}
	if l.has("systemd-tmpfiles") {
		list = append(list, []string{"systemd-tmpfiles", "--create", "postern.conf"})
	}
	sockets := []string{"postern.socket", "postern-control.socket"}
	switch {
	case p.touches(p.lib("systemd/system/"+sockets[0])) || p.touches(p.lib("systemd/system/"+sockets[1])):
		return append(list, []string{"systemctl", "stop", "postern.service"},
			append([]string{"systemctl", "restart"}, sockets...), []string{"systemctl", "restart", "postern.service"})
	case changed || p.touches(p.lib("systemd/system/postern.service")) || p.mounts():
		return append(list, []string{"systemctl", "restart", "postern.service"})
	}
	return append(list, append([]string{"systemctl", "start"}, append(sockets, "postern.service")...))
}

// Remount lists the commands that let a running agent have its tokens where p
// has put them: it looks for that once, when it starts.
func (l Live) Remount(p *Plan) [][]string {
	if l.Init != "systemd" || !l.Running {
		return nil
	}
	list := [][]string{{"systemctl", "daemon-reload"}}
	if p.mounts() {
		list = append(list, []string{"systemctl", "try-restart", "postern.service"})
	}
	return list
}

// Unmount lists the commands before p takes the mount away, and after it: the
// agent has the mount in use, and a request on a socket would start it again.
func (l Live) Unmount(ctx context.Context, p *Plan) (before, after [][]string) {
	after = l.Remount(p)
	if len(after) < 2 {
		return nil, after
	}
	units := []string{"postern.socket", "postern-control.socket", "postern.service"}
	after = after[:1]
	if l.run(ctx, "systemctl", "is-active", "--quiet", "postern.service") == nil {
		after = append(after, append([]string{"systemctl", "start"}, units...))
	}
	return [][]string{append(append([]string{"systemctl", "stop"}, units...), mountUnit)}, after
}

func verb(changed bool) string {
	if changed {
		return "restart"
	}
	return "start"
}

// reread makes init read /etc/inittab again.
func (l Live) reread() []string {
	if l.Init == "inittab" {
		return []string{"telinit", "q"}
	}
	return []string{"kill", "-HUP", "1"}
}

// Stop lists the commands that stop the agent before p takes its files away;
// none where the file that the init system needs for it is gone already.
func (l Live) Stop(p *Plan) [][]string {
	if !l.Running {
		return nil
	}
	needs, command := "", []string(nil)
	switch l.Init {
	case "systemd":
		return stopSystemd(p.units())
	case "openrc":
		needs, command = "/etc/init.d/postern", []string{"rc-service", "postern", "stop"}
	case "sysvinit":
		needs, command = "/etc/init.d/postern", []string{"/etc/init.d/postern", "stop"}
	case "runit":
		needs, command = l.Service+"/postern", []string{"sv", "down", "/etc/sv/postern"}
	case "s6":
		needs, command = l.Service+"/postern", []string{"s6-svc", "-wD", "-d", "-T", "10000", l.Service + "/postern"}
	}
	if command == nil || !p.root.there(needs) {
		return nil
	}
	return [][]string{command}
}

func stopSystemd(units []string) [][]string {
	var list [][]string
	if enabled := slices.DeleteFunc(slices.Clone(units), func(unit string) bool { return !optional(unit) }); len(enabled) > 0 {
		list = append(list, append([]string{"systemctl", "disable"}, enabled...))
	}
	if len(units) > 0 {
		list = append(list, append([]string{"systemctl", "stop"}, units...))
	}
	return list
}

// Forget lists the commands that make the init system see that the files are
// gone.
func (l Live) Forget() [][]string {
	if !l.Running {
		return nil
	}
	switch l.Init {
	case "systemd":
		return [][]string{{"systemctl", "daemon-reload"}}
	case "inittab", "busybox":
		return [][]string{l.reread()}
	case "s6":
		return [][]string{{"s6-svscanctl", "-an", l.Service}, forgetS6()}
	}
	return nil
}

// forgetS6 removes what s6-supervise keeps: it makes both directories itself,
// and gives up where the links to them lead to something already.
func forgetS6() []string { return append([]string{"rm", "-rf"}, s6Supervise, s6Event) }

// Do runs the commands one after the other and tells of each.
func (l Live) Do(ctx context.Context, commands [][]string, tell func(Step)) error {
	for _, argv := range commands {
		if err := l.run(ctx, argv...); err != nil {
			return err
		}
		tell(Step{Do: DoRun, Kind: Command, Path: strings.Join(argv, " ")})
	}
	return nil
}

// mounts reports whether the plan makes the mount of the tokens, or removes it.
func (p *Plan) mounts() bool {
	return p.touches("/usr/lib/systemd/system/"+mountUnit) || p.touches("/etc/systemd/system/"+mountUnit)
}

// touches reports whether the plan makes or replaces path.
func (p *Plan) touches(path string) bool {
	for _, s := range p.Steps {
		if s.Path == path && s.Do != DoUnchanged && s.Do != DoKeep {
			return true
		}
	}
	return false
}

// End sends SIGTERM to the agents that run from binary, for an init system
// that starts them again, or that has forgotten them, and waits until they are
// gone.
func (l Live) End(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	ended := agents(l.Binary)
	for _, pid := range ended {
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end pid %d: %w", pid, err)
		}
	}
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for _, pid := range ended {
		for syscall.Kill(pid, 0) == nil {
			select {
			case <-ctx.Done():
				return fmt.Errorf("pid %d does not end", pid)
			case <-again.C:
			}
		}
	}
	return nil
}

// agents are the processes that are `run` of the program at binary, or of the
// one that it replaced.
func agents(binary string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var list []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		exe, err := os.Readlink(filepath.Join("/proc", e.Name(), "exe"))
		if err != nil || strings.TrimSuffix(exe, " (deleted)") != binary {
			continue
		}
		argv, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if words := strings.Split(string(argv), "\x00"); err == nil && len(words) > 1 && words[1] == "run" {
			list = append(list, pid)
		}
	}
	return list
}

// Restarts reports whether the agent has to be ended by a signal to run the
// program that p brought: an inittab knows no other way.
func (l Live) Restarts(p *Plan) bool {
	return (l.Init == "inittab" || l.Init == "busybox") && p.touches(l.Binary) && !p.touches("/etc/inittab")
}

// Later adds commands to what the plan says.
func (p *Plan) Later(commands [][]string) {
	for _, argv := range commands {
		p.Steps = append(p.Steps, Step{Do: DoRun, Kind: Command, Path: strings.Join(argv, " ")})
	}
}
