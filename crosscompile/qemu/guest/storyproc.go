//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// account is an entry of the test root's passwd, with its groups.
type account struct {
	name     string
	uid, gid uint32
	groups   []uint32
}

// lookup reads an account from /etc/passwd and /etc/group.
func lookup(name string) (account, error) {
	a := account{name: name}
	found := false
	eachEntry("/etc/passwd", func(f []string) {
		if f[0] == name && len(f) > 3 {
			found, a.uid, a.gid = true, number(f[2]), number(f[3])
		}
	})
	if !found {
		return a, fmt.Errorf("there is no user %s", name)
	}
	eachEntry("/etc/group", func(f []string) {
		if len(f) > 3 {
			for member := range strings.SplitSeq(f[3], ",") {
				if member == name {
					a.groups = append(a.groups, number(f[2]))
				}
			}
		}
	})
	return a, nil
}

func groupID(name string) (gid uint32, err error) {
	err = fmt.Errorf("there is no group %s", name)
	eachEntry("/etc/group", func(f []string) {
		if f[0] == name && len(f) > 2 {
			gid, err = number(f[2]), nil
		}
	})
	return gid, err
}

func eachEntry(path string, visit func(fields []string)) {
	content, _ := os.ReadFile(path)
	for line := range strings.Lines(string(content)) {
		visit(strings.Split(strings.TrimSpace(line), ":"))
	}
}

func number(s string) uint32 {
	n, _ := strconv.ParseUint(s, 10, 32)
	return uint32(n)
}

// agentPID finds the process that runs `postern run`; 0 if there is none.
func agentPID() int {
	found, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range found {
		line, _ := os.ReadFile(path)
		args := strings.Split(string(line), "\x00")
		if len(args) > 1 && filepath.Base(args[0]) == "postern" && args[1] == "run" {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if field(pid, "State") != "Z" {
				return pid
			}
		}
	}
	return 0
}

// field is a line of /proc/PID/status, its words with single spaces between them.
func field(pid int, name string) string {
	content, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(content)) {
		if key, value, _ := strings.Cut(line, ":"); key == name {
			words := strings.Fields(value)
			if name == "State" && len(words) > 0 {
				return words[0]
			}
			return strings.Join(words, " ")
		}
	}
	return ""
}

func comm(pid int) string {
	name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(string(name))
}

// checkProcess says who the agent is and who looks after it.
func checkProcess(pid int, parent string) (string, error) {
	user, err := lookup("postern")
	if err != nil {
		return "", err
	}
	group, err := groupID("himds")
	if err != nil {
		return "", err
	}
	above, _ := strconv.Atoi(field(pid, "PPid"))
	got := fmt.Sprintf("uid %s gid %s groups %q caps %s parent %s (%d) peak %s", field(pid, "Uid"), field(pid, "Gid"),
		field(pid, "Groups"), field(pid, "CapEff"), comm(above), above, field(pid, "VmHWM"))
	for _, want := range []struct{ field, value string }{
		{"Uid", fmt.Sprintf("%[1]d %[1]d %[1]d %[1]d", user.uid)},
		{"Gid", fmt.Sprintf("%[1]d %[1]d %[1]d %[1]d", group)},
		{"CapEff", "0000000000000000"},
		{"CapPrm", "0000000000000000"},
		{"CapInh", "0000000000000000"},
	} {
		if is := field(pid, want.field); is != want.value {
			return got, fmt.Errorf("%s is %q, want %q", want.field, is, want.value)
		}
	}
	for word := range strings.FieldsSeq(field(pid, "Groups")) {
		if number(word) != group {
			return got, fmt.Errorf("group %s beside its own", word)
		}
	}
	if comm(above) != parent {
		return got, fmt.Errorf("its parent is %s, want %s", comm(above), parent)
	}
	return got, nil
}

// place is a path with the owner and mode that it must have.
type place struct {
	Path  string `json:"path"`
	Owner string `json:"owner"` // user:group
	Mode  string `json:"mode"`  // as %v of fs.FileMode
	Link  string `json:"link,omitempty"`
}

func checkPlaces(list []place) (string, error) {
	for _, p := range list {
		info, err := os.Lstat(p.Path)
		if err != nil {
			return "", err
		}
		if p.Link != "" {
			if to, err := os.Readlink(p.Path); err != nil || to != p.Link {
				return "", fmt.Errorf("%s leads to %q, want %q", p.Path, to, p.Link)
			}
			continue
		}
		userName, groupName, _ := strings.Cut(p.Owner, ":")
		user, err := lookup(userName)
		if err != nil {
			return "", err
		}
		group, err := groupID(groupName)
		if err != nil {
			return "", err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok || st.Uid != user.uid || st.Gid != group || info.Mode().String() != p.Mode {
			return "", fmt.Errorf("%s is %d:%d %v, want %s %s", p.Path, st.Uid, st.Gid, info.Mode(), p.Owner, p.Mode)
		}
	}
	return fmt.Sprintf("%d places", len(list)), nil
}

// exits hears from the kernel how any process ends, whoever its parent is.
type exits struct{ fd int }

const (
	connector    = 11 // NETLINK_CONNECTOR
	procEvents   = 1  // CN_IDX_PROC, CN_VAL_PROC, PROC_CN_MCAST_LISTEN
	procExit     = 0x80000000
	eventOffset  = 16 + 20 // after the netlink and connector headers
	exitOffset   = eventOffset + 16
	listenLength = 16 + 20 + 4
)

// watchExits begins to listen.
func watchExits() (*exits, error) {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, connector)
	if err != nil {
		return nil, fmt.Errorf("process events: %w", err)
	}
	e := &exits{fd}
	order := binary.NativeEndian
	m := make([]byte, listenLength)
	order.PutUint32(m[0:], listenLength)
	order.PutUint16(m[4:], syscall.NLMSG_DONE)
	order.PutUint32(m[16:], procEvents)
	order.PutUint32(m[20:], procEvents)
	order.PutUint16(m[32:], 4) // length of what follows
	order.PutUint32(m[36:], procEvents)
	limit := syscall.NsecToTimeval(int64(time.Second))
	err = errors.Join(
		syscall.Bind(fd, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK, Groups: procEvents}),
		syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUF, 1<<20),
		syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &limit),
		syscall.Sendto(fd, m, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}))
	if err != nil {
		e.close()
		return nil, fmt.Errorf("process events: %w", err)
	}
	return e, nil
}

func (e *exits) close() { _ = syscall.Close(e.fd) }

// of waits until the process pid has ended and returns how.
func (e *exits) of(pid int, limit time.Duration) (syscall.WaitStatus, error) {
	order := binary.NativeEndian
	buffer := make([]byte, 4096)
	for end := time.Now().Add(limit); time.Now().Before(end); {
		n, _, err := syscall.Recvfrom(e.fd, buffer, 0)
		if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("process events: %w", err)
		}
		if n < exitOffset+12 || order.Uint32(buffer[eventOffset:]) != procExit {
			continue
		}
		thread, process := order.Uint32(buffer[exitOffset:]), order.Uint32(buffer[exitOffset+4:])
		if thread == process && int(process) == pid {
			return syscall.WaitStatus(order.Uint32(buffer[exitOffset+8:])), nil
		}
	}
	return 0, fmt.Errorf("process %d has not ended within %s", pid, limit)
}
