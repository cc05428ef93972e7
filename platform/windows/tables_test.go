package windows

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// table4 builds MIB_TCPTABLE_OWNER_MODULE with one row.
func table4(local, remote netip.AddrPort, state, pid uint32, created uint64) []byte {
	b := make([]byte, tableHeaderLen+rowLen4)
	binary.LittleEndian.PutUint32(b, 1)
	r := b[tableHeaderLen:]
	binary.LittleEndian.PutUint32(r, state)
	copy(r[4:], local.Addr().AsSlice())
	binary.BigEndian.PutUint16(r[8:], local.Port())
	copy(r[12:], remote.Addr().AsSlice())
	binary.BigEndian.PutUint16(r[16:], remote.Port())
	binary.LittleEndian.PutUint32(r[20:], pid)
	binary.LittleEndian.PutUint64(r[24:], created)
	return b
}

// table6 builds MIB_TCP6TABLE_OWNER_MODULE with one row.
func table6(local, remote netip.AddrPort, state, pid uint32) []byte {
	b := make([]byte, tableHeaderLen+rowLen6)
	binary.LittleEndian.PutUint32(b, 1)
	r := b[tableHeaderLen:]
	l, m := local.Addr().As16(), remote.Addr().As16()
	copy(r, l[:])
	binary.BigEndian.PutUint16(r[20:], local.Port())
	copy(r[24:], m[:])
	binary.BigEndian.PutUint16(r[44:], remote.Port())
	binary.LittleEndian.PutUint32(r[48:], state)
	binary.LittleEndian.PutUint32(r[52:], pid)
	return b
}

func TestConnectionIsFoundByBothEnds(t *testing.T) {
	theirs, ours := netip.MustParseAddrPort("127.0.0.1:50000"), netip.MustParseAddrPort("127.0.0.1:40342")
	rows, err := parseTable4(table4(theirs, ours, tcpEstablished, 712, 133_000_000_000_000_000))
	if err != nil {
		t.Fatal(err)
	}
	row, ok := connection(rows, theirs, ours)
	if !ok || row.pid != 712 || !row.created.Equal(time.Date(2022, 6, 18, 4, 26, 40, 0, time.UTC)) {
		t.Errorf("got %+v, %v", row, ok)
	}
	if _, ok := connection(rows, ours, theirs); ok {
		t.Error("our own end was taken for the client's")
	}
	for _, closed := range [][2]uint32{{tcpListen, 712}, {11, 712}, {tcpEstablished, 0}} {
		rows, err := parseTable4(table4(theirs, ours, closed[0], closed[1], 0))
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := connection(rows, theirs, ours); ok {
			t.Errorf("state %d, pid %d was taken for a caller", closed[0], closed[1])
		}
	}
}

func TestDualStackClientIsFoundUnderItsIPv4Address(t *testing.T) {
	theirs, ours := netip.MustParseAddrPort("127.0.0.1:50000"), netip.MustParseAddrPort("127.0.0.1:40342")
	rows, err := parseTable6(table6(theirs, ours, tcpCloseWait, 9))
	if err != nil {
		t.Fatal(err)
	}
	if row, ok := connection(rows, theirs, ours); !ok || row.pid != 9 {
		t.Errorf("got %+v, %v", row, ok)
	}
}

func FuzzTCPTable(f *testing.F) {
	a := netip.MustParseAddrPort("127.0.0.1:1")
	f.Add(table4(a, a, tcpEstablished, 1, 1))
	f.Add(table6(a, a, tcpEstablished, 1))
	f.Add([]byte{255, 255, 255, 255, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, parse := range []func([]byte) ([]tcpRow, error){parseTable4, parseTable6} {
			rows, err := parse(b)
			if err == nil && len(rows)*rowLen4 > len(b) {
				t.Errorf("%d rows out of %d bytes", len(rows), len(b))
			}
		}
	})
}

// smbios builds a raw table with a system and a board.
func smbios(serial, board string) []byte {
	b := make([]byte, rawHeaderLen)
	system := make([]byte, 0x1b)
	system[0], system[1], system[7] = 1, 0x1b, 2
	for i := range 16 {
		system[8+i] = byte(i + 1)
	}
	b = append(b, system...)
	b = append(b, "Maker\x00"+serial+"\x00\x00"...)
	b = append(b, 2, 8, 0, 0, 0, 0, 0, 1)
	b = append(b, board+"\x00\x00"...)
	return append(b, 127, 4, 0, 0, 0, 0)
}

func TestFirmwareTableGivesTheBoardsSerials(t *testing.T) {
	got := parseSMBIOS(smbios("PS-1", "BS-2"))
	want := boardFacts{uuid: "0102030405060708090a0b0c0d0e0f10", productSerial: "PS-1", boardSerial: "BS-2"}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestFieldsThatNobodyFilledProveNothing(t *testing.T) {
	var kept []string
	for _, v := range []string{"To be filled by O.E.M.", "0000000", "Default string", "", " ", "FFFFFFFF-FFFF", "C1B2"} {
		if f := fact("board", v); f != "" {
			kept = append(kept, v)
		}
	}
	if !slices.Equal(kept, []string{"C1B2"}) {
		t.Errorf("kept %q", kept)
	}
}

func FuzzSMBIOS(f *testing.F) {
	f.Add(smbios("PS-1", "BS-2"))
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 0})
	f.Fuzz(func(_ *testing.T, b []byte) { parseSMBIOS(b) })
}
