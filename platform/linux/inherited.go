//go:build linux

package linux

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"postern/platform"
)

// inheritedSocket is one descriptor of socket activation (sd_listen_fds(3)).
type inheritedSocket struct {
	name    string // as in FileDescriptorName=; empty if names were not given
	network string // "tcp4", "tcp6", "unix"; "" for anything else
	address string
	file    *os.File // nil once it was taken
}

// firstInherited is the number of the first descriptor that is handed over.
const firstInherited = 3

// maxInherited bounds LISTEN_FDS: nobody hands over more.
const maxInherited = 64

// inheritSockets makes the descriptors that are meant for this process ours:
// nothing that we start gets them.
func inheritSockets(env func(string) string) ([]*inheritedSocket, error) {
	if env("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(env("LISTEN_FDS"))
	if err != nil || n < 0 || n > maxInherited {
		return nil, fmt.Errorf("socket activation: LISTEN_FDS is %q", env("LISTEN_FDS"))
	}
	var names []string
	if s := env("LISTEN_FDNAMES"); s != "" {
		names = strings.Split(s, ":")
	}
	var list []*inheritedSocket
	for i := range n {
		fd := firstInherited + i
		unix.CloseOnExec(fd)
		s := &inheritedSocket{}
		if i < len(names) && names[i] != "unknown" {
			s.name = names[i]
		}
		if s.network, s.address, err = listening(fd); err != nil {
			return nil, fmt.Errorf("socket activation: descriptor %d (%s): %w", fd, s.name, err)
		}
		s.file = os.NewFile(uintptr(fd), s.name)
		list = append(list, s)
	}
	return list, nil
}

// listening says on what fd listens; "" for a socket that is no stream
// listener of a family that we serve.
func listening(fd int) (network, address string, err error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return "", "", err
	}
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return "", "", err
	}
	accepts, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil || typ != unix.SOCK_STREAM || accepts != 1 {
		return "", "", err
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return "tcp4", netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)).String(), nil //nolint:gosec // a port has 16 bits
	case *unix.SockaddrInet6:
		return "tcp6", netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)).String(), nil //nolint:gosec // a port has 16 bits
	case *unix.SockaddrUnix:
		return "unix", sa.Name, nil
	}
	return "", "", nil
}

// takeInherited returns the socket that fits l and forgets it; nil if nothing
// was handed over for it. A socket under l's name and of its family with
// another address is a mistake in the unit, which is said, not worked around.
func (h *Host) takeInherited(l platform.Listener) (net.Listener, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var other string
	for _, s := range h.inherited {
		if s.file == nil || s.name != "" && s.name != l.Name || s.network != l.Network {
			continue
		}
		if !sameAddress(s.address, l.Address) {
			if s.name != "" {
				other = s.address
			}
			continue
		}
		ln, err := net.FileListener(s.file)
		if err != nil {
			return nil, fmt.Errorf("socket activation: %s: %w", l.Name, err)
		}
		if u, ok := ln.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false) // the file belongs to who made it
		}
		_ = s.file.Close() // FileListener holds a copy
		s.file = nil
		return ln, nil
	}
	if other != "" {
		return nil, fmt.Errorf("socket activation: %s was handed over for %s, configured is %s", l.Name, other, l.Address)
	}
	return nil, nil
}

// sameAddress compares addresses however they are written, and paths as they are.
func sameAddress(a, b string) bool {
	x, err1 := netip.ParseAddrPort(a)
	y, err2 := netip.ParseAddrPort(b)
	if err1 != nil || err2 != nil {
		return a == b
	}
	return x == y
}
