//go:build linux

package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Sizes of struct nlmsghdr, inet_diag_req_v2 and inet_diag_msg
// (linux/netlink.h, linux/inet_diag.h). Integers are the machine's, ports and
// addresses the network's.
const (
	nlHeaderLen = 16
	diagReqLen  = 56
	diagMsgLen  = 72

	diagSequence = 1 // one question a socket: any other answer is not ours
)

var errDiag = errors.New("sock_diag answer is malformed")

// errNoDiag is wrapped when this process cannot ask at all: the kernel has no
// sock_diag, or a filter forbids it.
var errNoDiag = errors.New("no sock_diag")

// sockDiag asks the kernel for the one TCP socket with these two ends. It
// needs no right and costs four system calls: a socket, a question, an answer.
// unix.ENOENT: there is none.
func sockDiag(local, remote netip.AddrPort) (socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	switch {
	case err == nil:
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return socket{}, fmt.Errorf("%w: %w", errNoDiag, err)
	default: // too many open files: the next one may succeed
		return socket{}, err
	}
	defer func() { _ = unix.Close(fd) }() // nothing is pending on it
	if err := unix.Sendto(fd, diagRequest(local, remote), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return socket{}, err
	}
	buf := make([]byte, 1024)
	n, err := ignoringEINTR(func() (int, error) { return recvFromKernel(fd, buf) })
	if err != nil {
		return socket{}, err
	}
	return parseDiag(buf[:n])
}

// recvFromKernel refuses what another process put into our mailbox. It does
// not wait: the kernel has answered when sendto returns.
func recvFromKernel(fd int, buf []byte) (int, error) {
	n, from, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
	if err != nil {
		return 0, err
	}
	if nl, ok := from.(*unix.SockaddrNetlink); !ok || nl.Pid != 0 {
		return 0, fmt.Errorf("%w: not from the kernel", errDiag)
	}
	return n, nil
}

// diagRequest asks for exactly one socket, in any state.
func diagRequest(local, remote netip.AddrPort) []byte {
	b := make([]byte, nlHeaderLen+diagReqLen)
	ne := binary.NativeEndian
	ne.PutUint32(b[0:], nlHeaderLen+diagReqLen)
	ne.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	ne.PutUint16(b[6:], unix.NLM_F_REQUEST)
	ne.PutUint32(b[8:], diagSequence)
	r := b[nlHeaderLen:]
	r[0] = unix.AF_INET6
	if local.Addr().Is4() {
		r[0] = unix.AF_INET
	}
	r[1] = unix.IPPROTO_TCP
	ne.PutUint32(r[4:], 0xffffffff) // states
	binary.BigEndian.PutUint16(r[8:], local.Port())
	binary.BigEndian.PutUint16(r[10:], remote.Port())
	copy(r[12:28], local.Addr().AsSlice())
	copy(r[28:44], remote.Addr().AsSlice())
	for i := 48; i < 56; i++ {
		r[i] = 0xff // no cookie
	}
	return b
}

// parseDiag decodes one answer: a socket, or the kernel's errno.
func parseDiag(b []byte) (socket, error) {
	ne := binary.NativeEndian
	if len(b) < nlHeaderLen {
		return socket{}, fmt.Errorf("%w: %d bytes", errDiag, len(b))
	}
	size, typ, seq := ne.Uint32(b), ne.Uint16(b[4:]), ne.Uint32(b[8:])
	if size < nlHeaderLen || uint64(size) > uint64(len(b)) || seq != diagSequence {
		return socket{}, fmt.Errorf("%w: length %d of %d, sequence %d", errDiag, size, len(b), seq)
	}
	m := b[nlHeaderLen:size]
	switch {
	case typ == unix.NLMSG_ERROR && len(m) >= 4:
		if code := int32(ne.Uint32(m)); code < 0 && code > -4096 { //nolint:gosec // a negative errno, as the kernel writes it
			return socket{}, unix.Errno(-code)
		}
		return socket{}, fmt.Errorf("%w: error without a number", errDiag)
	case typ != unix.SOCK_DIAG_BY_FAMILY || len(m) < diagMsgLen:
		return socket{}, fmt.Errorf("%w: type %d, %d bytes", errDiag, typ, len(m))
	}
	src, ok1 := diagAddr(m[0], m[8:24])
	dst, ok2 := diagAddr(m[0], m[24:40])
	if !ok1 || !ok2 {
		return socket{}, fmt.Errorf("%w: family %d", errDiag, m[0])
	}
	return socket{
		local:  netip.AddrPortFrom(src, binary.BigEndian.Uint16(m[4:])),
		remote: netip.AddrPortFrom(dst, binary.BigEndian.Uint16(m[6:])),
		state:  m[1],
		uid:    ne.Uint32(m[64:]),
		inode:  uint64(ne.Uint32(m[68:])),
	}, nil
}

func diagAddr(family byte, b []byte) (netip.Addr, bool) {
	switch family {
	case unix.AF_INET:
		return netip.AddrFrom4([4]byte(b[:4])), true
	case unix.AF_INET6:
		return netip.AddrFrom16([16]byte(b)).Unmap(), true
	}
	return netip.Addr{}, false
}
