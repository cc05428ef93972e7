//go:build windows

package windows

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"

	"postern/platform"
)

// soExclusiveAddrUse is SO_EXCLUSIVEADDRUSE (winsock2.h: the complement of
// SO_REUSEADDR): without it another program could bind the same address over
// us and take our callers.
const soExclusiveAddrUse = ^windows.SO_REUSEADDR

// Listen opens a TCP listener of our own, or the control pipe; nothing is
// handed over by this system. An address of network "unix" is the name of a
// pipe, \\.\pipe\NAME.
func (h *Host) Listen(ctx context.Context, l platform.Listener) (net.Listener, error) {
	if l.Network == "unix" {
		return h.listenPipe(l)
	}
	want, err := netip.ParseAddrPort(l.Address)
	if err != nil {
		return nil, fmt.Errorf("listen %s: %w", l.Address, err)
	}
	if want.Addr().IsUnspecified() && !l.Everywhere {
		return nil, fmt.Errorf("listen %s: a wildcard address is for the whole network", l.Address)
	}
	if l.Loopback && !want.Addr().IsLoopback() {
		return nil, fmt.Errorf("listen %s: only loopback addresses are kept from the network here", l.Address)
	}
	lc := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, raw syscall.RawConn) error {
		var optErr error
		err := raw.Control(func(fd uintptr) {
			optErr = windows.SetsockoptInt(windows.Handle(fd), windows.SOL_SOCKET, soExclusiveAddrUse, 1)
		})
		return errors.Join(err, optErr)
	}}
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(ctx, l.Network, l.Address)
	switch {
	case err == nil:
		return ln, nil
	case errors.Is(err, windows.WSAEADDRINUSE) || errors.Is(err, windows.WSAEACCES): // the second: held exclusively
		owner := h.PortOwner(l.Address)
		if owner == "" {
			owner = "an owner that cannot be seen"
		}
		return nil, fmt.Errorf("listen %s: %w by %s", l.Address, platform.ErrPortTaken, owner)
	case want.Addr().IsLoopback() && (errors.Is(err, windows.WSAEADDRNOTAVAIL) || errors.Is(err, windows.WSAEAFNOSUPPORT)):
		return nil, fmt.Errorf("listen %s: %w", l.Address, platform.ErrNoFamily)
	case errors.Is(err, windows.WSAEADDRNOTAVAIL):
		return nil, fmt.Errorf("listen %s: %w: %w", l.Address, platform.ErrNoAddress, windows.WSAEADDRNOTAVAIL)
	}
	return nil, err
}

// listenPipe makes the pipe with its descriptor, as its first instance (a pipe
// of that name that is there already is a squatter's) and refusing clients from
// the network; go-winio does both.
func (h *Host) listenPipe(l platform.Listener) (net.Listener, error) {
	if !strings.HasPrefix(l.Address, `\\.\pipe\`) {
		return nil, fmt.Errorf("listen %s: a pipe is named \\\\.\\pipe\\NAME", l.Address)
	}
	ln, err := winio.ListenPipe(l.Address, &winio.PipeConfig{SecurityDescriptor: strings.ReplaceAll(sddlPipe, "%[1]s", h.agent)})
	if errors.Is(err, windows.ERROR_ACCESS_DENIED) || errors.Is(err, windows.ERROR_ALREADY_EXISTS) || errors.Is(err, windows.ERROR_PIPE_BUSY) {
		return nil, fmt.Errorf("listen %s: %w", l.Address, platform.ErrPortTaken)
	}
	if err != nil {
		return nil, fmt.Errorf("listen %s: %w", l.Address, err)
	}
	return ln, nil
}

// DialControl connects to a pipe and lets the server learn who we are, and no
// more: it cannot act as us.
func DialControl(ctx context.Context, pipe string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return winio.DialPipeAccessImpLevel(ctx, pipe, windows.GENERIC_READ|windows.GENERIC_WRITE, winio.PipeImpLevelIdentification)
}
