package windows

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"
)

// States of the TCP table (MIB_TCP_STATE).
const (
	tcpListen      = 2
	tcpEstablished = 5
	tcpCloseWait   = 8
)

// tcpRow is one connection of the TCP table.
type tcpRow struct {
	local, remote netip.AddrPort
	state, pid    uint32
	created       time.Time // when the socket was made; zero if the system does not say
}

// Layouts of MIB_TCPTABLE_OWNER_MODULE and MIB_TCP6TABLE_OWNER_MODULE
// (tcpmib.h): a count, padding to 8 bytes, rows.
const (
	tableHeaderLen = 8
	rowLen4        = 160
	rowLen6        = 192
)

var errTable = errors.New("tcp table is shorter than it says")

// parseTable4 decodes rows of IPv4.
func parseTable4(b []byte) ([]tcpRow, error) {
	return parseTable(b, rowLen4, func(r []byte) tcpRow {
		return tcpRow{
			state:   binary.LittleEndian.Uint32(r),
			local:   netip.AddrPortFrom(netip.AddrFrom4([4]byte(r[4:8])), binary.BigEndian.Uint16(r[8:])),
			remote:  netip.AddrPortFrom(netip.AddrFrom4([4]byte(r[12:16])), binary.BigEndian.Uint16(r[16:])),
			pid:     binary.LittleEndian.Uint32(r[20:]),
			created: fileTime(binary.LittleEndian.Uint64(r[24:])),
		}
	})
}

// parseTable6 decodes rows of IPv6. An IPv4 client of a dual-stack socket has
// a mapped address there.
func parseTable6(b []byte) ([]tcpRow, error) {
	return parseTable(b, rowLen6, func(r []byte) tcpRow {
		return tcpRow{
			local:   netip.AddrPortFrom(netip.AddrFrom16([16]byte(r[0:16])).Unmap(), binary.BigEndian.Uint16(r[20:])),
			remote:  netip.AddrPortFrom(netip.AddrFrom16([16]byte(r[24:40])).Unmap(), binary.BigEndian.Uint16(r[44:])),
			state:   binary.LittleEndian.Uint32(r[48:]),
			pid:     binary.LittleEndian.Uint32(r[52:]),
			created: fileTime(binary.LittleEndian.Uint64(r[56:])),
		}
	})
}

func parseTable(b []byte, size int, row func([]byte) tcpRow) ([]tcpRow, error) {
	if len(b) < tableHeaderLen {
		return nil, errTable
	}
	n := uint64(binary.LittleEndian.Uint32(b))
	b = b[tableHeaderLen:]
	if n*uint64(size) > uint64(len(b)) { //nolint:gosec // the size of a row, a constant of the caller
		return nil, errTable
	}
	rows := make([]tcpRow, 0, n)
	for range n {
		rows = append(rows, row(b[:size]))
		b = b[size:]
	}
	return rows, nil
}

// fileTime converts 100 ns since 1601 to time.
func fileTime(t uint64) time.Time {
	const toUnix = 116444736000000000
	if t < toUnix || t > 1<<62 {
		return time.Time{}
	}
	t -= toUnix
	return time.Unix(int64(t/1e7), int64(t%1e7)*100).UTC()
}

// connection finds the open connection with these two ends.
func connection(rows []tcpRow, local, remote netip.AddrPort) (tcpRow, bool) {
	for _, r := range rows {
		open := r.state == tcpEstablished || r.state == tcpCloseWait
		if open && r.pid != 0 && r.local == local && r.remote == remote {
			return r, true
		}
	}
	return tcpRow{}, false
}
