//go:build linux

package linux

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// PortOwner names who listens on a TCP address, or on the wildcard of its
// family and port: "uid 1001 (eve), pid 712 (python3)". The pid is only there
// for our own processes, unless we are root. Empty if nobody can be seen.
// For messages: the answer may be old when it arrives.
func (h *Host) PortOwner(address string) string {
	want, err := netip.ParseAddrPort(address)
	if err != nil {
		return ""
	}
	for _, file := range []string{"proc/net/tcp", "proc/net/tcp6"} {
		for line := range strings.Lines(readLimited(filepath.Join(h.facts, file), maxProcNet)) {
			s, err := parseProcNet(line)
			if err != nil || s.state != tcpListen || s.local.Port() != want.Port() {
				continue
			}
			if s.local.Addr() == want.Addr().Unmap() || s.local.Addr().IsUnspecified() {
				return h.describeOwner(s)
			}
		}
	}
	return ""
}

func (h *Host) describeOwner(s socket) string {
	text := fmt.Sprintf("uid %d", s.uid)
	if u, ok := h.accounts.byUID(s.uid); ok {
		text += " (" + u.name + ")"
	}
	if pid := h.holderOf(fmt.Sprintf("socket:[%d]", s.inode)); pid != 0 {
		text += ", " + describeProcess(pid)
	}
	return text
}

// holderOf finds a process with a descriptor of this name; 0 if none is visible.
func (h *Host) holderOf(link string) int {
	proc := filepath.Join(h.facts, "proc")
	for _, dir := range h.glob("proc", "[0-9]*") {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		fds := filepath.Join(proc, filepath.Base(dir), "fd")
		entries, err := os.ReadDir(fds)
		if err != nil {
			continue // another account's, or gone
		}
		for _, e := range entries {
			if target, err := os.Readlink(filepath.Join(fds, e.Name())); err == nil && target == link {
				return pid
			}
		}
	}
	return 0
}

// describeProcess is "pid 712 (python3)".
func describeProcess(pid int) string {
	comm := strings.TrimSpace(readLimited(fmt.Sprintf("/proc/%d/comm", pid), 64))
	if comm == "" {
		return fmt.Sprintf("pid %d", pid)
	}
	return fmt.Sprintf("pid %d (%s)", pid, strconv.QuoteToASCII(comm)[1:len(strconv.QuoteToASCII(comm))-1])
}

// LockHolder names the process that holds a lock on the file at path,
// "pid 712 (postern)"; empty if there is none or it cannot be seen.
func (h *Host) LockHolder(path string) string {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return ""
	}
	for line := range strings.Lines(readLimited(filepath.Join(h.facts, "proc/locks"), maxProcNet)) {
		l, ok := parseLock(line)
		// Some file systems (btrfs, overlay) show another device here than in
		// stat, so the inode decides.
		if ok && l.inode == st.Ino && l.pid != os.Getpid() {
			return describeProcess(l.pid)
		}
	}
	return ""
}

// fileLock is one line of /proc/locks:
//
//	1: FLOCK  ADVISORY  WRITE 712 fd:01:1048601 0 EOF
type fileLock struct {
	pid   int
	inode uint64
}

func parseLock(line string) (fileLock, bool) {
	f := strings.Fields(line)
	if len(f) > 1 && f[1] == "->" {
		return fileLock{}, false // it waits, it does not hold
	}
	if len(f) < 6 {
		return fileLock{}, false
	}
	pid, err := strconv.Atoi(f[4])
	if err != nil || pid <= 0 {
		return fileLock{}, false // -1: an OFD lock, which no process owns; 0: not of our namespace
	}
	id := strings.Split(f[5], ":")
	if len(id) != 3 {
		return fileLock{}, false
	}
	inode, err := strconv.ParseUint(id[2], 10, 64)
	return fileLock{pid, inode}, err == nil
}
