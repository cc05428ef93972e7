//go:build linux

package linux

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// maxProcNet bounds what is read of /proc/net/tcp: about 25,000 sockets.
const maxProcNet = 4 << 20

var errProcNet = errors.New("line of /proc/net/tcp is malformed")

// parseProcNet decodes one line of /proc/net/tcp or tcp6:
//
//	0: 0100007F:9D96 00000000:0000 0A 00000000:00000000 00:00000000 00000000  942  0 12345 …
//
// that is number, local and remote address, state, queues, timer, retransmits,
// uid, timeout, inode. Addresses are words of the machine, ports are numbers.
func parseProcNet(line string) (socket, error) {
	f := strings.Fields(line)
	if len(f) < 10 || !strings.HasSuffix(f[0], ":") {
		return socket{}, errProcNet
	}
	local, err := procAddr(f[1])
	if err != nil {
		return socket{}, err
	}
	remote, err := procAddr(f[2])
	if err != nil {
		return socket{}, err
	}
	state, err := strconv.ParseUint(f[3], 16, 8)
	if err != nil {
		return socket{}, fmt.Errorf("%w: state", errProcNet)
	}
	uid, err := strconv.ParseUint(f[7], 10, 32)
	if err != nil {
		return socket{}, fmt.Errorf("%w: uid", errProcNet)
	}
	inode, err := strconv.ParseUint(f[9], 10, 64)
	if err != nil {
		return socket{}, fmt.Errorf("%w: inode", errProcNet)
	}
	return socket{local: local, remote: remote, state: uint8(state), uid: uint32(uid), inode: inode}, nil
}

// procAddr decodes 0100007F:9D96 or the form with four words.
func procAddr(s string) (netip.AddrPort, error) {
	host, port, ok := strings.Cut(s, ":")
	if !ok || len(port) != 4 || len(host) != 8 && len(host) != 32 {
		return netip.AddrPort{}, fmt.Errorf("%w: address", errProcNet)
	}
	b, err := hex.DecodeString(host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w: address", errProcNet)
	}
	for w := b; len(w) > 0; w = w[4:] {
		binary.NativeEndian.PutUint32(w, binary.BigEndian.Uint32(w))
	}
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w: port", errProcNet)
	}
	addr, _ := netip.AddrFromSlice(b) // 4 or 16 bytes
	return netip.AddrPortFrom(addr.Unmap(), uint16(p)), nil
}
