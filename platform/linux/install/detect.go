//go:build linux

package install

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Found is an init system and what shows it.
type Found struct {
	Init     string // one of Inits, "procd", or "" if none was recognised
	Evidence string
	Running  bool // it is process 1 of this system, so that it can be told to start the agent
}

// Detect finds the init system: of this system by what runs as process 1, of
// a tree by what is installed in it.
func Detect(dir string) Found {
	r := &root{dir: filepath.Clean(dir)}
	if r.dir == "/" {
		if f := detectRunning(r); f.Init != "" {
			return f
		}
	}
	return detectFiles(r)
}

// detectRunning asks process 1. OpenRC is not process 1 but is started by it.
func detectRunning(r *root) Found {
	if f := detectSign("/run"); f.Init != "" {
		return f
	}
	comm, err := os.ReadFile("/proc/1/comm")
	if err != nil {
		return Found{}
	}
	exe, _ := os.Readlink("/proc/1/exe") // only root may; the name will have to do
	name := strings.TrimSpace(string(comm))
	evidence := "process 1 is " + name
	switch base := filepath.Base(exe); {
	case name == "systemd":
		return Found{"", evidence + ", but /run/systemd/system is missing", false}
	case name == "runit" || name == "runsvdir":
		return Found{"runit", evidence, true}
	case name == "s6-svscan":
		return Found{"s6", evidence, true}
	case name == "procd":
		return Found{"procd", evidence, true}
	case strings.HasPrefix(base, "busybox"):
		return Found{"busybox", evidence + ", " + exe, true}
	case name == "init" && isSysV(r):
		return Found{"inittab", evidence + ", and /etc/inittab is System V's", true}
	}
	return Found{"", evidence, false}
}

// detectSign looks for what an init system leaves in run to be known by. Nothing
// is gone through, so the modes of the way do not count: OpenRC gives its
// directory to its group.
func detectSign(run string) Found {
	for _, sign := range []struct{ path, init string }{{"systemd/system", "systemd"}, {"openrc/softlevel", "openrc"}} {
		path := filepath.Join(run, sign.path)
		if _, err := os.Lstat(path); err == nil {
			return Found{sign.init, path, true}
		}
	}
	return Found{}
}

// isSysV reports whether init is that of System V: its inittab has run levels.
func isSysV(r *root) bool {
	f, err := r.look("/etc/inittab")
	return err == nil && f != nil && strings.Contains("\n"+string(f.content), "\nid:")
}

// detectFiles looks at where /sbin/init leads, and then at what there is. Two
// systems at once are for a person to choose from.
func detectFiles(r *root) Found {
	for _, path := range []string{"/sbin/init", "/usr/sbin/init"} {
		f, err := r.look(path)
		if err != nil || f == nil {
			continue
		}
		for _, known := range []struct{ part, init string }{
			{"systemd", "systemd"}, {"openrc-init", "openrc"}, {"runit-init", "runit"}, {"s6-svscan", "s6"}, {"s6-linux-init", "s6"}, {"procd", "procd"},
		} {
			if strings.Contains(f.target, known.part) {
				return Found{Init: known.init, Evidence: path + " leads to " + f.target}
			}
		}
		if strings.Contains(f.target, "busybox") && !r.there("/sbin/openrc") {
			return Found{Init: "busybox", Evidence: path + " leads to " + f.target}
		}
		if f.kind() == unix.S_IFREG && isSysV(r) && !r.there("/sbin/openrc") {
			return Found{Init: "inittab", Evidence: path + ", and /etc/inittab is System V's"}
		}
		break
	}
	return onlyOne(r)
}

func onlyOne(r *root) Found {
	var found []Found
	for _, known := range []struct{ init, path string }{
		{"systemd", "/usr/lib/systemd/systemd"},
		{"systemd", "/lib/systemd/systemd"},
		{"openrc", "/sbin/openrc"},
		{"openrc", "/usr/sbin/openrc"},
		{"runit", "/usr/bin/runsvdir"},
		{"s6", "/usr/bin/s6-svscan"},
		{"s6", "/bin/s6-svscan"},
		{"procd", "/sbin/procd"},
	} {
		if r.there(known.path) && (len(found) == 0 || found[len(found)-1].Init != known.init) {
			found = append(found, Found{Init: known.init, Evidence: known.path})
		}
	}
	switch len(found) {
	case 0:
		return Found{Evidence: "there is no init system that we know"}
	case 1:
		return found[0]
	}
	var names []string
	for _, f := range found {
		names = append(names, f.Init)
	}
	return Found{Evidence: "there are " + strings.Join(names, " and ")}
}

func (r *root) there(path string) bool {
	f, err := r.look(path)
	return err == nil && f != nil
}
