//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"postern/platform"
)

const loopbackDevice = "lo"

// Listen returns the socket that was handed over under the listener's name and
// address, or opens it. It never falls back to another port or family. With
// Loopback the socket is bound to the device lo, and this is read back; only
// for 127.0.0.0/8 and ::1, which the kernel does not accept from outside, is a
// kernel before 5.7, where the bind takes a capability, let off with a warning.
//
// Errors: platform.ErrPortTaken, naming the owner where it is visible;
// platform.ErrNoFamily for a loopback address that this machine does not have,
// platform.ErrNoAddress for any other, unless it is Early.
func (h *Host) Listen(ctx context.Context, l platform.Listener) (net.Listener, error) {
	if l.Network == "unix" {
		return h.listenUnix(ctx, l)
	}
	want, err := netip.ParseAddrPort(l.Address)
	if err != nil {
		return nil, fmt.Errorf("listen %s: %w", l.Address, err)
	}
	if want.Addr().IsUnspecified() && !l.Everywhere {
		return nil, fmt.Errorf("listen %s: a wildcard address is for the whole network", l.Address)
	}
	if want.Addr().Is4() != (l.Network == "tcp4") || l.Network != "tcp4" && l.Network != "tcp6" {
		return nil, fmt.Errorf("listen %s: not an address of %s", l.Address, l.Network)
	}
	ln, err := h.takeInherited(l)
	if err != nil {
		return nil, err
	}
	if ln == nil {
		if ln, err = h.listenTCP(ctx, l, want); err != nil {
			return nil, err
		}
	}
	if err := h.checkTCP(ln, l, want); err != nil {
		_ = ln.Close() // the check's error says more
		return nil, err
	}
	return ln, nil
}

// listenTCP opens the socket: no MPTCP, because a sandbox's rule for TCP ports
// does not see it (firmware-notes/attack-surface.md), and bound to lo before it has an
// address.
func (h *Host) listenTCP(ctx context.Context, l platform.Listener, want netip.AddrPort) (net.Listener, error) {
	lc := net.ListenConfig{KeepAlive: -1}
	lc.SetMultipathTCP(false)
	lc.Control = func(_, _ string, raw syscall.RawConn) error {
		var optErr error
		err := raw.Control(func(fd uintptr) {
			switch {
			case l.Loopback:
				optErr = h.bindLoopback(int(fd), want)
			case l.Early:
				optErr = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1) // for IPv6 as well
			}
		})
		return errors.Join(err, optErr)
	}
	ln, err := lc.Listen(ctx, l.Network, l.Address)
	switch {
	case err == nil:
		return ln, nil
	case errors.Is(err, unix.EADDRINUSE):
		owner := h.PortOwner(l.Address)
		if owner == "" {
			owner = "an owner that cannot be seen"
		}
		return nil, fmt.Errorf("listen %s: %w by %s", l.Address, platform.ErrPortTaken, owner)
	case want.Addr().IsLoopback() && (errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT)):
		return nil, fmt.Errorf("listen %s: %w", l.Address, platform.ErrNoFamily)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return nil, fmt.Errorf("listen %s: %w: %w", l.Address, platform.ErrNoAddress, unix.EADDRNOTAVAIL)
	}
	return nil, err
}

// bindLoopback sets SO_BINDTODEVICE, so that a neighbour cannot reach the
// socket whatever its address (TestNeighbourCannotReachTheIMDSAddress).
func (h *Host) bindLoopback(fd int, want netip.AddrPort) error {
	err := unix.BindToDevice(fd, loopbackDevice)
	if err == unix.EPERM && want.Addr().IsLoopback() {
		h.log.Warn("kernel does not let us bind to the loopback device", "address", want.String())
		return nil
	}
	if err != nil {
		return fmt.Errorf("bind to device %s: %w", loopbackDevice, err)
	}
	return nil
}

// checkTCP verifies what we are about to serve, whoever opened it.
func (h *Host) checkTCP(ln net.Listener, l platform.Listener, want netip.AddrPort) error {
	t, ok := ln.(*net.TCPListener)
	if !ok {
		return fmt.Errorf("listen %s: the socket is no tcp listener", l.Address)
	}
	got, ok := addrPort(t.Addr())
	if !ok || got.Addr() != want.Addr() || want.Port() != 0 && got.Port() != want.Port() {
		return fmt.Errorf("listen %s: the socket is bound to %s", l.Address, t.Addr())
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return err
	}
	var checkErr error
	if err := raw.Control(func(fd uintptr) { checkErr = h.checkSocket(int(fd), l, want) }); err != nil {
		return err
	}
	return checkErr
}

func (h *Host) checkSocket(fd int, l platform.Listener, want netip.AddrPort) error {
	proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return fmt.Errorf("listen %s: read protocol: %w", l.Address, err)
	}
	if proto != unix.IPPROTO_TCP {
		return fmt.Errorf("listen %s: the socket speaks protocol %d, want plain tcp", l.Address, proto)
	}
	if !l.Loopback {
		return nil
	}
	device, err := boundDevice(fd)
	if err == nil && device == loopbackDevice {
		return nil
	}
	if err := h.bindLoopback(fd, want); err != nil {
		return fmt.Errorf("listen %s: %w", l.Address, err)
	}
	device, err = boundDevice(fd)
	if err == nil && device != loopbackDevice && !want.Addr().IsLoopback() {
		err = fmt.Errorf("the socket is bound to device %q, want %s", device, loopbackDevice)
	}
	if err != nil {
		return fmt.Errorf("listen %s: %w", l.Address, err)
	}
	return nil
}

// boundDevice is the name of the device that the socket is bound to. Emulators
// of foreign programs do not know the question for the name, but the one for
// the number.
func boundDevice(fd int) (string, error) {
	device, err := unix.GetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
	if err != unix.EINVAL && err != unix.ENOPROTOOPT {
		return device, err
	}
	return boundIndex(fd)
}

// boundIndex is boundDevice by the number of the device.
func boundIndex(fd int) (string, error) {
	index, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX)
	if err != nil || index == 0 {
		return "", err
	}
	device, err := net.InterfaceByIndex(index)
	if err != nil {
		return "", err
	}
	return device.Name, nil
}
