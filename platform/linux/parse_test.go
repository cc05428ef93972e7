//go:build linux

package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"postern/platform"
)

var (
	theirs = netip.MustParseAddrPort("127.0.0.1:50000")
	ours   = netip.MustParseAddrPort("127.0.0.1:40342")
)

// diagAnswer builds inet_diag_msg as the kernel sends it.
func diagAnswer(s socket, family byte) []byte {
	b := make([]byte, nlHeaderLen+diagMsgLen)
	ne := binary.NativeEndian
	ne.PutUint32(b, uint32(len(b)))
	ne.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	ne.PutUint32(b[8:], diagSequence)
	m := b[nlHeaderLen:]
	m[0], m[1] = family, s.state
	binary.BigEndian.PutUint16(m[4:], s.local.Port())
	binary.BigEndian.PutUint16(m[6:], s.remote.Port())
	if family == unix.AF_INET {
		copy(m[8:], s.local.Addr().AsSlice())
		copy(m[24:], s.remote.Addr().AsSlice())
	} else {
		l, r := s.local.Addr().As16(), s.remote.Addr().As16()
		copy(m[8:], l[:])
		copy(m[24:], r[:])
	}
	ne.PutUint32(m[64:], s.uid)
	ne.PutUint32(m[68:], uint32(s.inode))
	return b
}

func diagError(code int32) []byte {
	b := make([]byte, nlHeaderLen+4)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], unix.NLMSG_ERROR)
	binary.NativeEndian.PutUint32(b[8:], diagSequence)
	binary.NativeEndian.PutUint32(b[nlHeaderLen:], uint32(code))
	return b
}

func TestKernelAnswerIsReadInBothFamilies(t *testing.T) {
	want := socket{local: theirs, remote: ours, state: tcpEstablished, uid: 1001, inode: 77}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		if got, err := parseDiag(diagAnswer(want, family)); err != nil || got != want {
			t.Errorf("family %d: got %+v, %v", family, got, err)
		}
	}
	if _, err := parseDiag(diagError(-int32(unix.ENOENT))); !errors.Is(err, unix.ENOENT) {
		t.Errorf("got %v, want ENOENT", err)
	}
}

func TestKernelAnswerThatIsNotOursIsRefused(t *testing.T) {
	good := diagAnswer(socket{local: theirs, remote: ours}, unix.AF_INET)
	change := func(at int, value byte) []byte {
		b := slices.Clone(good)
		b[at] = value
		return b
	}
	for name, b := range map[string][]byte{
		"empty": nil, "short": good[:10], "cut": good[:60], "other sequence": change(8, 9), "other type": change(4, 99),
		"other family": change(nlHeaderLen, unix.AF_UNIX), "length beyond the end": change(1, 9),
		"error without number": diagError(0), "positive error": diagError(5),
	} {
		if _, err := parseDiag(b); !errors.Is(err, errDiag) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestClosedPeerIsUnknownAndNotRoot is the rule table of firmware-notes/attack-surface.md.
func TestClosedPeerIsUnknownAndNotRoot(t *testing.T) {
	h := &Host{overflow: 65534}
	good := socket{local: theirs, remote: ours, state: tcpEstablished, uid: 1001, inode: 77}
	change := func(f func(*socket)) socket {
		s := good
		f(&s)
		return s
	}
	for name, test := range map[string]struct {
		s    socket
		want platform.Peer
	}{
		"open":              {good, platform.UIDPeer(1001)},
		"half closed":       {change(func(s *socket) { s.state = tcpCloseWait }), platform.UIDPeer(1001)},
		"root":              {change(func(s *socket) { s.uid = 0 }), platform.UIDPeer(0)},
		"closed":            {socket{local: theirs, remote: ours, state: 7}, platform.Unknown},
		"closed, no state":  {change(func(s *socket) { s.uid, s.inode = 0, 0 }), platform.Unknown},
		"time wait":         {change(func(s *socket) { s.state = 6 }), platform.Unknown},
		"syn sent":          {change(func(s *socket) { s.state = 2 }), platform.Unknown},
		"listening":         {change(func(s *socket) { s.state = tcpListen }), platform.Unknown},
		"our own end":       {change(func(s *socket) { s.local, s.remote = s.remote, s.local }), platform.Unknown},
		"another port":      {change(func(s *socket) { s.local = netip.AddrPortFrom(s.local.Addr(), 1) }), platform.Unknown},
		"another listener":  {change(func(s *socket) { s.remote = netip.AddrPortFrom(s.remote.Addr(), 1) }), platform.Unknown},
		"another namespace": {change(func(s *socket) { s.uid = 65534 }), platform.Unknown},
		"no uid":            {change(func(s *socket) { s.uid = noGroup }), platform.Unknown},
	} {
		if got := h.owner(test.s, theirs, ours); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

// procLine is a line of /proc/net/tcp on this machine's byte order.
func procLine(local, remote netip.AddrPort, state uint8, uid uint32, inode uint64) string {
	hex := func(a netip.AddrPort) string {
		var b strings.Builder
		for w := a.Addr().AsSlice(); len(w) > 0; w = w[4:] {
			fmt.Fprintf(&b, "%08X", binary.NativeEndian.Uint32(w))
		}
		return fmt.Sprintf("%s:%04X", b.String(), a.Port())
	}
	return fmt.Sprintf("   0: %s %s %02X 00000000:00000000 00:00000000 00000000 %5d        0 %d 1 0000000000000000 20 4 30 10 -1\n",
		hex(local), hex(remote), state, uid, inode)
}

func TestProcNetIsReadInBothFamilies(t *testing.T) {
	for _, pair := range [][2]string{{"127.0.0.1:50000", "127.0.0.1:40342"}, {"[::1]:50000", "[::1]:40342"}, {"[fe80::1:2:3:4]:1", "[2001:db8::1]:65535"}} {
		local, remote := netip.MustParseAddrPort(pair[0]), netip.MustParseAddrPort(pair[1])
		got, err := parseProcNet(procLine(local, remote, tcpEstablished, 1001, 99))
		want := socket{local: local, remote: remote, state: tcpEstablished, uid: 1001, inode: 99}
		if err != nil || got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
	mapped := netip.MustParseAddrPort("[::ffff:127.0.0.1]:50000")
	if got, err := parseProcNet(procLine(mapped, mapped, 1, 0, 1)); err != nil || got.local != theirs {
		t.Errorf("a mapped address is %v, %v", got.local, err)
	}
	for _, line := range []string{
		"", "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
		strings.Replace(procLine(theirs, ours, 1, 0, 1), "0100007F", "0100007", 1), strings.Replace(procLine(theirs, ours, 1, 0, 1), ":9D96", ":9D9G", 1),
	} {
		if _, err := parseProcNet(line); err == nil {
			t.Errorf("%q was understood", line)
		}
	}
}

func TestLockIsFoundAndWaitersAreNotTakenForHolders(t *testing.T) {
	if l, ok := parseLock("1: FLOCK  ADVISORY  WRITE 712 fd:01:1048601 0 EOF"); !ok || l != (fileLock{712, 1048601}) {
		t.Errorf("got %+v, %v", l, ok)
	}
	for _, line := range []string{"1: -> FLOCK  ADVISORY  WRITE 712 fd:01:1048601 0 EOF", "2: OFDLCK ADVISORY  READ -1 fd:01:5 0 EOF", "", "1: FLOCK", "1: FLOCK A W 1 nonsense 0 EOF"} {
		if l, ok := parseLock(line); ok {
			t.Errorf("%q gave %+v", line, l)
		}
	}
}

func TestAccountsComeFromTheFilesAlone(t *testing.T) {
	root := t.TempDir()
	write(t, root, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\n# comment\nbroken\npostern:x:942:943::/nonexistent:/bin/false\r\neve:x:1001:1001::/home/eve:/bin/sh\n+nis::::::\nbad:x:-1:0:::\nnoid:x:4294967295:0:::\nnobody:x:65534:65534:::\n")
	write(t, root, "etc/group", "root:x:0:\nhimds:x:943:eve,,ghost\nempty:x:944\n")
	h := &Host{overflow: 65534}
	h.accounts.root = root
	for name, want := range map[string]platform.Peer{
		"root": platform.UIDPeer(0), "eve": platform.UIDPeer(1001), "942": platform.UIDPeer(942), "7": platform.UIDPeer(7),
		"": platform.Unknown, "ghost": platform.Unknown, "noid": platform.Unknown, "bad": platform.Unknown, "nobody": platform.Unknown,
		"4294967295": platform.Unknown, "-1": platform.Unknown,
	} {
		if got := h.Account(name); got != want {
			t.Errorf("account %q is %v, want %v", name, got, want)
		}
	}
	for _, m := range []struct {
		uid   uint32
		group string
		want  bool
	}{{1001, "himds", true}, {942, "himds", true}, {942, "943", true}, {0, "himds", false}, {1001, "root", false}, {5, "himds", false}, {1001, "no-such", false}} {
		if got := h.Member(platform.UIDPeer(m.uid), m.group); got != m.want {
			t.Errorf("uid %d in %s is %v", m.uid, m.group, got)
		}
	}
	if got := h.UserName(platform.UIDPeer(1001)); got != "eve" {
		t.Errorf("uid 1001 is %q", got)
	}
	if got := h.UserName(platform.UIDPeer(7)); got != "" {
		t.Errorf("uid 7 is %q", got)
	}
	write(t, root, "etc/group", "himds:x:943:\n")
	if h.Member(platform.UIDPeer(1001), "himds") {
		t.Error("a change of the file was not seen")
	}
}

func write(t *testing.T, root, name, content string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func FuzzDiag(f *testing.F) {
	f.Add(diagAnswer(socket{local: theirs, remote: ours, state: 1, uid: 5, inode: 6}, unix.AF_INET))
	f.Add(diagAnswer(socket{local: theirs, remote: ours, state: 1, uid: 5, inode: 6}, unix.AF_INET6))
	f.Add(diagError(-2))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseDiag(b)
		if err != nil && s != (socket{}) {
			t.Errorf("an error and a socket: %+v", s)
		}
	})
}

func FuzzProcNet(f *testing.F) {
	f.Add(procLine(theirs, ours, 1, 1001, 5))
	f.Add("  sl  local_address rem_address   st")
	f.Fuzz(func(t *testing.T, line string) {
		s, err := parseProcNet(line)
		if err == nil && !s.local.IsValid() {
			t.Errorf("%q gave %+v", line, s)
		}
	})
}

func FuzzAccountFiles(f *testing.F) {
	f.Add("root:x:0:0:root:/root:/bin/sh\n")
	f.Add("himds:x:943:a,b\n")
	f.Add("1: FLOCK  ADVISORY  WRITE 712 fd:01:1048601 0 EOF")
	f.Fuzz(func(t *testing.T, text string) {
		for _, u := range parsePasswd(text) {
			if u.name == "" || u.uid == noGroup {
				t.Errorf("%q gave %+v", text, u)
			}
		}
		for _, g := range parseGroup(text) {
			if g.name == "" || slices.Contains(g.members, "") {
				t.Errorf("%q gave %+v", text, g)
			}
		}
		if l, ok := parseLock(text); ok && l.pid <= 0 {
			t.Errorf("%q gave %+v", text, l)
		}
	})
}
