//go:build windows

package windows

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"postern/platform"
)

// Arguments of GetExtendedTcpTable (iphlpapi.h).
const (
	tableOwnerModuleListener    = 6
	tableOwnerModuleConnections = 7
)

// Peer says which account holds the other end of c: by the TCP table, or for a
// pipe by the client's token (firmware-notes/attack-surface.md).
func (h *Host) Peer(c net.Conn) platform.Peer {
	for {
		inner, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		c = inner.NetConn()
	}
	if pipe, ok := c.(interface{ Fd() uintptr }); ok {
		return pipePeer(windows.Handle(pipe.Fd()))
	}
	ours, ok1 := c.LocalAddr().(*net.TCPAddr)
	theirs, ok2 := c.RemoteAddr().(*net.TCPAddr)
	if !ok1 || !ok2 {
		return platform.Unknown
	}
	return tcpPeer(unmapped(theirs), unmapped(ours))
}

func unmapped(a *net.TCPAddr) netip.AddrPort {
	p := a.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port())
}

// tcpPeer finds the pid of the client's own end, opens the process, and looks
// again: the pid is only believed if the connection still has it while the
// process is open, and if the process is older than the connection. Else
// somebody took over a pid that became free.
func tcpPeer(theirs, ours netip.AddrPort) platform.Peer {
	row, ok := find(theirs, ours)
	if !ok {
		return platform.Unknown
	}
	process, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, row.pid)
	if err != nil {
		return platform.Unknown
	}
	defer func() { _ = windows.CloseHandle(process) }() // read only
	again, ok := find(theirs, ours)
	if !ok || again.pid != row.pid {
		return platform.Unknown
	}
	var created, exited, kernel, user windows.Filetime
	if err := windows.GetProcessTimes(process, &created, &exited, &kernel, &user); err != nil {
		return platform.Unknown
	}
	if !row.created.IsZero() && time.Unix(0, created.Nanoseconds()).After(row.created) {
		return platform.Unknown
	}
	return processPeer(process)
}

// processPeer is the account of an open process.
func processPeer(process windows.Handle) platform.Peer {
	var token windows.Token
	if err := windows.OpenProcessToken(process, windows.TOKEN_QUERY, &token); err != nil {
		return platform.Unknown
	}
	defer func() { _ = token.Close() }() // read only
	return tokenPeer(token)
}

func tokenPeer(token windows.Token) platform.Peer {
	u, err := token.GetTokenUser()
	if err != nil {
		return platform.Unknown
	}
	return sidPeer(u.User.Sid.String())
}

// find looks for a connection in the tables of both families: a dual-stack
// client of an IPv4 address may stand in the second.
func find(local, remote netip.AddrPort) (tcpRow, bool) {
	for _, family := range []uint32{windows.AF_INET, windows.AF_INET6} {
		rows, err := tcpTable(family, tableOwnerModuleConnections)
		if err != nil {
			continue
		}
		if row, ok := connection(rows, local, remote); ok {
			return row, true
		}
	}
	return tcpRow{}, false
}

// tcpTable reads one table; it grows while we ask, so we ask again.
func tcpTable(family, class uint32) ([]tcpRow, error) {
	call := windows.NewLazySystemDLL("iphlpapi.dll").NewProc("GetExtendedTcpTable")
	if err := call.Find(); err != nil {
		return nil, err
	}
	size := uint32(32 << 10)
	for range 8 {
		b := make([]byte, size)
		status, _, _ := call.Call(uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0, uintptr(family), uintptr(class), 0)
		switch windows.Errno(status) {
		case windows.ERROR_SUCCESS:
			if family == windows.AF_INET {
				return parseTable4(b)
			}
			return parseTable6(b)
		case windows.ERROR_INSUFFICIENT_BUFFER:
			size += 4 << 10
		default:
			return nil, windows.Errno(status)
		}
	}
	return nil, windows.ERROR_INSUFFICIENT_BUFFER
}

// pipePeer asks for the client's token by impersonation, which works once the
// client has written and let itself be identified (DialControl does); before
// that by its process, with the same second look as for TCP.
func pipePeer(pipe windows.Handle) platform.Peer {
	if p := impersonated(pipe); p != platform.Unknown {
		return p
	}
	var pid, again uint32
	if err := windows.GetNamedPipeClientProcessId(pipe, &pid); err != nil {
		return platform.Unknown
	}
	process, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, pid)
	if err != nil {
		return platform.Unknown
	}
	defer func() { _ = windows.CloseHandle(process) }() // read only
	if err := windows.GetNamedPipeClientProcessId(pipe, &again); err != nil || again != pid {
		return platform.Unknown
	}
	return processPeer(process)
}

// impersonated wears the client's token for the time of one question. The
// thread that cannot take it off again is not given back to other goroutines.
func impersonated(pipe windows.Handle) platform.Peer {
	call := windows.NewLazySystemDLL("advapi32.dll").NewProc("ImpersonateNamedPipeClient")
	if call.Find() != nil {
		return platform.Unknown
	}
	answer := make(chan platform.Peer, 1)
	go func() {
		runtime.LockOSThread()
		peer := platform.Unknown
		defer func() { answer <- peer }()
		if ok, _, _ := call.Call(uintptr(pipe)); ok == 0 {
			runtime.UnlockOSThread()
			return
		}
		var token windows.Token
		if err := windows.OpenThreadToken(windows.CurrentThread(), windows.TOKEN_QUERY, true, &token); err == nil {
			peer = tokenPeer(token)
			_ = token.Close() // read only
		}
		if err := windows.RevertToSelf(); err != nil {
			peer = platform.Unknown
			return // the thread ends with this goroutine
		}
		runtime.UnlockOSThread()
	}()
	peer := <-answer
	if peer == sidPeer("S-1-5-7") { // anonymous: the client did not let itself be identified
		return platform.Unknown
	}
	return peer
}

// PortOwner names who listens on a TCP address: "DOMAIN\user, pid 712 (x.exe)".
func (h *Host) PortOwner(address string) string {
	want, err := netip.ParseAddrPort(address)
	if err != nil {
		return ""
	}
	for _, family := range []uint32{windows.AF_INET, windows.AF_INET6} {
		rows, err := tcpTable(family, tableOwnerModuleListener)
		if err != nil {
			continue
		}
		for _, r := range rows {
			if r.state == tcpListen && r.local.Port() == want.Port() && (r.local.Addr() == want.Addr() || r.local.Addr().IsUnspecified()) {
				return h.describe(r.pid)
			}
		}
	}
	return ""
}

func (h *Host) describe(pid uint32) string {
	text := fmt.Sprintf("pid %d", pid)
	process, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, pid)
	if err != nil {
		return text
	}
	defer func() { _ = windows.CloseHandle(process) }() // read only
	name := make([]uint16, windows.MAX_LONG_PATH)
	size := uint32(len(name)) //nolint:gosec // a name is shorter than 64 KB
	if err := windows.QueryFullProcessImageName(process, 0, &name[0], &size); err == nil {
		text += fmt.Sprintf(" (%s)", filepath.Base(windows.UTF16ToString(name[:size])))
	}
	if user := h.UserName(processPeer(process)); user != "" {
		text = user + ", " + text
	}
	return text
}
