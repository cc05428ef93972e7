//go:build linux

package linux

import (
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"postern/platform"
)

// TCP states, as netlink and /proc number them (net/tcp_states.h).
const (
	tcpEstablished = 1
	tcpCloseWait   = 8
	tcpListen      = 10
)

// socket is what the kernel says of one TCP socket.
type socket struct {
	local, remote netip.AddrPort // unmapped
	state         uint8
	uid           uint32
	inode         uint64
}

// owner is the peer that holds s, if s is the socket that was asked for and
// open. A closed socket is reported as uid 0, inode 0, without an error: taken
// at its word, that would be root (TestClosedPeerIsUnknownAndNotRoot). The
// overflow uid is whoever our user namespace does not know.
func (h *Host) owner(s socket, local, remote netip.AddrPort) platform.Peer {
	open := s.state == tcpEstablished || s.state == tcpCloseWait
	if s.inode == 0 || !open || s.local != local || s.remote != remote {
		return platform.Unknown
	}
	return h.mapped(s.uid)
}

// mapped is the peer of a uid that our user namespace knows.
func (h *Host) mapped(uid uint32) platform.Peer {
	if uid == h.overflow || uid == noGroup {
		return platform.Unknown
	}
	return platform.UIDPeer(uid)
}

// tcpPeer looks for the client's own socket: its address is the source, ours
// the destination. A peer on another machine has no socket here.
func (h *Host) tcpPeer(c *net.TCPConn) platform.Peer {
	ours, ok1 := addrPort(c.LocalAddr())
	theirs, ok2 := addrPort(c.RemoteAddr())
	if !ok1 || !ok2 {
		return platform.Unknown
	}
	if !h.without.sockDiag.Load() {
		s, err := sockDiag(theirs, ours)
		if err == nil {
			return h.owner(s, theirs, ours)
		}
		// ENOENT is also what a kernel without the TCP part of sock_diag says.
		// It has it if it finds our own end, which is open: then the client's
		// end is gone.
		if errors.Is(err, unix.ENOENT) {
			if _, err := sockDiag(ours, theirs); err == nil {
				return platform.Unknown
			}
		}
		if errors.Is(err, errNoDiag) {
			h.without.sockDiag.Store(true)
			h.log.Warn("callers are looked up in /proc/net/tcp, which is slow", "reason", err)
		}
	}
	return h.procPeer(theirs, ours)
}

func addrPort(a net.Addr) (netip.AddrPort, bool) {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port()), p.IsValid()
}

// procPeer is tcpPeer by /proc/net/tcp and tcp6, with the same rules. An IPv4
// client with a dual-stack socket (Java) stands in the second file.
func (h *Host) procPeer(theirs, ours netip.AddrPort) platform.Peer {
	for _, file := range []string{"proc/net/tcp", "proc/net/tcp6"} {
		text := readLimited(filepath.Join(h.facts, file), maxProcNet)
		for line := range strings.Lines(text) {
			s, err := parseProcNet(line)
			if err == nil && s.local == theirs && s.remote == ours {
				return h.owner(s, theirs, ours)
			}
		}
	}
	return platform.Unknown
}

// unixPeer asks the kernel who connected. The answer is of the moment of the
// connection and stays true after the client is gone.
func (h *Host) unixPeer(c *net.UnixConn) platform.Peer {
	raw, err := c.SyscallConn()
	if err != nil {
		return platform.Unknown
	}
	peer := platform.Unknown
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err == nil && cred.Pid != 0 { // pid 0: another pid namespace, or no peer
			peer = h.mapped(cred.Uid)
		}
	})
	if err != nil {
		return platform.Unknown
	}
	return peer
}

// readOverflowUID is the uid that stands for unmapped accounts.
func readOverflowUID(facts string) uint32 {
	text := strings.TrimSpace(readLimited(filepath.Join(facts, "proc/sys/kernel/overflowuid"), 64))
	if id, err := parseID(text); err == nil {
		return id
	}
	return 65534
}
