//go:build linux

package linux

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"postern/platform"
)

func TestOwnListenerIsPlainTCPOnTheLoopbackDevice(t *testing.T) {
	for _, l := range []platform.Listener{
		{Name: "arc", Network: "tcp4", Address: "127.0.0.1:0", Loopback: true},
		{Name: "arc", Network: "tcp6", Address: "[::1]:0", Loopback: true},
	} {
		ln, err := testHost(t).Listen(t.Context(), l)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close() //nolint:errcheck // a test's listener
		protocol, device := options(t, ln)
		if protocol != unix.IPPROTO_TCP || device != "lo" {
			t.Errorf("%s: protocol %d on device %q, want tcp on lo", l.Network, protocol, device)
		}
	}
}

// TestOwnListenerIsNeverReachableForAMoment: the device comes before the
// address, not with the check afterwards.
func TestOwnListenerIsNeverReachableForAMoment(t *testing.T) {
	l := platform.Listener{Name: "arc", Network: "tcp4", Address: "127.0.0.1:0", Loopback: true}
	ln, err := testHost(t).listenTCP(t.Context(), l, netip.MustParseAddrPort(l.Address))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() //nolint:errcheck // a test's listener
	if _, device := options(t, ln); device != "lo" {
		t.Errorf("before the check the device is %q, want lo", device)
	}
}

// TestTheDeviceIsReadByItsNumberWhereItsNameIsNotToBeHad compares both
// questions on a bound and on a free socket.
func TestTheDeviceIsReadByItsNumberWhereItsNameIsNotToBeHad(t *testing.T) {
	for _, want := range []string{"", loopbackDevice} {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd) //nolint:errcheck // a test's socket
		if want != "" {
			if err := unix.BindToDevice(fd, want); err != nil {
				t.Fatal(err)
			}
		}
		byName, errName := boundDevice(fd)
		byNumber, errNumber := boundIndex(fd)
		if err := errors.Join(errName, errNumber); err != nil || byName != want || byNumber != want {
			t.Errorf("device by name %q, by number %q, %v; want %q", byName, byNumber, err, want)
		}
	}
}

// options reads back what a listener is.
func options(t *testing.T, ln net.Listener) (protocol int, device string) {
	t.Helper()
	raw, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var err1, err2 error
	if err := raw.Control(func(fd uintptr) {
		protocol, err1 = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PROTOCOL)
		device, err2 = boundDevice(int(fd))
	}); errors.Join(err, err1, err2) != nil {
		t.Fatal(err, err1, err2)
	}
	return protocol, device
}

func TestAddressesForTheNetworkAreRefused(t *testing.T) {
	h := testHost(t)
	for _, l := range []platform.Listener{
		{Network: "tcp4", Address: "0.0.0.0:0", Loopback: true},
		{Network: "tcp6", Address: "[::]:0"},
		{Network: "tcp4", Address: ":0"},
		{Network: "tcp4", Address: "localhost:0"},
		{Network: "tcp4", Address: "[::1]:0"},
		{Network: "tcp6", Address: "127.0.0.1:0"},
		{Network: "udp", Address: "127.0.0.1:0"},
		{Network: "tcp", Address: "127.0.0.1:0"},
		{Network: "tcp4", Address: "127.0.0.1"},
	} {
		if ln, err := h.Listen(t.Context(), l); err == nil {
			t.Errorf("%+v: listens on %v", l, ln.Addr())
			_ = ln.Close()
		}
	}
}

func TestWildcardIsListenedOnOnlyWhereItIsMeant(t *testing.T) {
	ln, err := testHost(t).Listen(t.Context(), platform.Listener{Network: "tcp4", Address: "0.0.0.0:0", Everywhere: true})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() //nolint:errcheck // a test's listener
	if protocol, device := options(t, ln); protocol != unix.IPPROTO_TCP || device != "" {
		t.Errorf("protocol %d on device %q, want tcp on every device", protocol, device)
	}
}

func TestTakenPortNamesItsOwner(t *testing.T) {
	h := testHost(t)
	l := platform.Listener{Network: "tcp4", Address: "127.0.0.1:0", Loopback: true}
	ln, err := h.Listen(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() //nolint:errcheck // a test's listener
	l.Address = ln.Addr().String()
	_, err = h.Listen(t.Context(), l)
	who := fmt.Sprintf("uid %d", os.Geteuid())
	if !errors.Is(err, platform.ErrPortTaken) || !strings.Contains(err.Error(), who) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) {
		t.Errorf("got %v, want %s and our pid", err, who)
	}
	if got := h.PortOwner("127.0.0.1:1"); got != "" {
		t.Errorf("nobody's port belongs to %q", got)
	}
}

func TestControlSocketReplacesADeadOneOnly(t *testing.T) {
	h := testHost(t)
	l := platform.Listener{Name: "control", Network: "unix", Address: filepath.Join(filepath.Dir(h.dirs.State), "control.sock")}
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: l.Address, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	for access, mode := range map[platform.Access]uint32{0: 0o666, platform.Public: 0o666, platform.Private: 0o600} {
		l.Access = access
		ln, err := h.Listen(t.Context(), l)
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Lstat(l.Address, &st); err != nil || st.Mode&0o777 != mode {
			t.Errorf("access %v has mode %04o, %v, want %04o", access, st.Mode&0o777, err, mode)
		}
		_, err = h.Listen(t.Context(), l)
		if !errors.Is(err, platform.ErrPortTaken) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) {
			t.Errorf("got %v, want the owner", err)
		}
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(l.Address, []byte("not ours"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Listen(t.Context(), l); !errors.Is(err, platform.ErrAccess) {
		t.Errorf("a file in the place of the socket: %v", err)
	}
	if content, err := os.ReadFile(l.Address); err != nil || string(content) != "not ours" {
		t.Errorf("it was replaced: %q, %v", content, err)
	}
}

func TestMissingFamilyIsToldApart(t *testing.T) {
	needRoot(t)
	for _, test := range []struct {
		address string
		want    error
	}{{"[::1]:40342", platform.ErrNoFamily}, {"169.254.169.254:80", platform.ErrNoAddress}, {"172.17.0.1:40400", platform.ErrNoAddress}} {
		isolated(t, func(h *Host) error { // where lo is down and has no address
			network := "tcp6"
			if test.address[0] != '[' {
				network = "tcp4"
				if err := ip("link set lo up"); err != nil { // without any address all count as ours
					return err
				}
			}
			ln, err := h.Listen(context.Background(), platform.Listener{Network: network, Address: test.address, Loopback: true})
			if err == nil {
				_ = ln.Close()
			}
			if !errors.Is(err, test.want) {
				return fmt.Errorf("%s: got %w, want %w", test.address, err, test.want)
			}
			return nil
		})
	}
}

// playInheritor listens for what it was told, with the sockets that it was
// given, and says what it got.
func playInheritor() error {
	var want []platform.Listener
	if err := json.Unmarshal([]byte(os.Getenv("WANT")), &want); err != nil {
		return err
	}
	if err := os.Setenv("LISTEN_PID", fmt.Sprint(os.Getpid())); err != nil {
		return err
	}
	h, err := New(Options{})
	if err != nil {
		fmt.Println("error:", err)
		return nil
	}
	if flags, err := unix.FcntlInt(firstInherited, unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		return fmt.Errorf("programs that we start would get the socket: flags %#x, %w", flags, err)
	}
	for _, l := range want {
		ln, err := h.Listen(context.Background(), l)
		if err != nil {
			fmt.Println("error:", err)
			continue
		}
		text := "listens on " + ln.Addr().String()
		if tcp, ok := ln.(*net.TCPListener); ok {
			raw, err := tcp.SyscallConn()
			if err != nil {
				return err
			}
			if err := raw.Control(func(fd uintptr) {
				device, err := boundDevice(int(fd))
				text += fmt.Sprintf(" device %s %v", device, err)
			}); err != nil {
				return err
			}
		}
		fmt.Println(text)
		_ = ln.Close()
	}
	return nil
}

// inherit hands the sockets over to a child and returns what it says for each
// listener.
func inherit(t *testing.T, names string, sockets []any, want ...platform.Listener) []string {
	t.Helper()
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, "inheritor", func(c *exec.Cmd) {
		c.Env = append(c.Env, "WANT="+string(text), fmt.Sprintf("LISTEN_FDS=%d", len(sockets)), "LISTEN_FDNAMES="+names)
		for _, s := range sockets {
			f, err := s.(interface{ File() (*os.File, error) }).File()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = f.Close() })
			c.ExtraFiles = append(c.ExtraFiles, f)
		}
	})
	var said []string
	for range want {
		said = append(said, p.line(t))
	}
	return said
}

// given opens a listener as an init system would.
func given(t *testing.T, network, address string, multipath bool) net.Listener {
	t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(multipath)
	ln, err := lc.Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

func TestSocketsOfTheInitSystemAreTakenAndBoundToLoopback(t *testing.T) {
	control := filepath.Join(testHost(t).dirs.State + ".sock")
	six, four := given(t, "tcp6", "[::1]:0", false), given(t, "tcp4", "127.0.0.1:0", false)
	sockets := []any{given(t, "unix", control, false), six, four}
	want := []platform.Listener{
		{Name: "arc", Network: "tcp4", Address: four.Addr().String(), Loopback: true},
		{Name: "arc", Network: "tcp6", Address: six.Addr().String(), Loopback: true},
		{Name: "control", Network: "unix", Address: control},
	}
	for _, names := range []string{"control:arc:arc", ""} {
		said := inherit(t, names, sockets, want...)
		for i, line := range said {
			expected := "listens on " + want[i].Address
			if want[i].Loopback {
				expected += " device lo <nil>"
			}
			if line != expected {
				t.Errorf("names %q: %s: %s", names, want[i].Network, line)
			}
		}
	}
	if _, err := os.Lstat(control); err != nil {
		t.Errorf("the init system's socket file was removed: %v", err)
	}
}

func TestSocketsThatDoNotFitAreRefused(t *testing.T) {
	multipath := given(t, "tcp4", "127.0.0.1:0", true)
	plain := given(t, "tcp4", "127.0.0.1:0", false)
	datagram, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer datagram.Close() //nolint:errcheck // a test's socket
	for _, test := range []struct {
		names  string
		socket any
		want   platform.Listener
		says   string
	}{
		{"arc", datagram, platform.Listener{Name: "arc", Network: "tcp4", Address: plain.Addr().String(), Loopback: true}, platform.ErrPortTaken.Error()},
		{"arc", multipath, platform.Listener{Name: "arc", Network: "tcp4", Address: multipath.Addr().String(), Loopback: true}, "want plain tcp"},
		{"arc", plain, platform.Listener{Name: "arc", Network: "tcp4", Address: "127.0.0.1:40342", Loopback: true}, "was handed over for " + plain.Addr().String()},
		{"imds", plain, platform.Listener{Name: "arc", Network: "tcp4", Address: plain.Addr().String(), Loopback: true}, platform.ErrPortTaken.Error()},
	} {
		if said := inherit(t, test.names, []any{test.socket}, test.want); !strings.HasPrefix(said[0], "error:") || !strings.Contains(said[0], test.says) {
			t.Errorf("%s for %+v: %s", test.names, test.want, said[0])
		}
	}
}

func TestSocketsOfAnotherProcessAreNotOurs(t *testing.T) {
	for _, env := range []map[string]string{
		{"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_FDS": "1"}, {"LISTEN_PID": fmt.Sprint(os.Getpid()), "LISTEN_FDS": "0"},
	} {
		if list, err := inheritSockets(func(k string) string { return env[k] }); err != nil || len(list) != 0 {
			t.Errorf("%v: got %v, %v", env, list, err)
		}
	}
	for _, n := range []string{"", "x", "-1", "1000"} {
		env := map[string]string{"LISTEN_PID": fmt.Sprint(os.Getpid()), "LISTEN_FDS": n}
		if _, err := inheritSockets(func(k string) string { return env[k] }); err == nil {
			t.Errorf("LISTEN_FDS=%q was accepted", n)
		}
	}
}
