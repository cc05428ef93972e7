//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"postern/platform"
)

// playCaller connects under another account: "network address account", then
// waits to be told to leave.
func playCaller() error {
	hear := stdin()
	f := strings.Fields(hear())
	if len(f) != 3 {
		return fmt.Errorf("told %q", f)
	}
	if err := become(f[2]); err != nil {
		return err
	}
	c, err := net.Dial(f[0], f[1])
	if err != nil {
		return err
	}
	fmt.Println("connected")
	hear()
	return c.Close()
}

// become changes the account; "-" keeps it. Not by Drop, which rightly refuses
// below an emulator, whose own thread stays root's.
func become(account string) error {
	if account == "-" {
		return nil
	}
	var uid, gid int
	if _, err := fmt.Sscanf(account, "%d:%d", &uid, &gid); err != nil {
		return err
	}
	return errors.Join(syscall.Setgroups(nil), syscall.Setgid(gid), syscall.Setuid(uid))
}

// call has a stranger connect to ln and returns our end.
func call(t *testing.T, ln net.Listener) (*process, net.Conn) {
	t.Helper()
	p := start(t, "caller", nil)
	p.say(t, ln.Addr().Network()+" "+ln.Addr().String()+" "+stranger)
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if got := p.line(t); got != "connected" {
		t.Fatalf("caller said %q", got)
	}
	return p, c
}

func TestCallersAreKnownByTheirAccount(t *testing.T) {
	needRoot(t)
	base := testHost(t)
	for _, l := range []platform.Listener{
		{Network: "tcp4", Address: "127.0.0.1:0", Loopback: true},
		{Network: "tcp6", Address: "[::1]:0", Loopback: true},
		{Network: "unix", Address: filepath.Join(filepath.Dir(base.dirs.State), "s.sock")},
	} {
		for _, fallback := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s fallback=%v", l.Network, fallback), func(t *testing.T) {
				h := testHost(t)
				h.without.sockDiag.Store(fallback)
				ln, err := h.Listen(t.Context(), l)
				if err != nil {
					t.Fatal(err)
				}
				defer ln.Close() //nolint:errcheck // a test's listener
				_, c := call(t, ln)
				if got := h.Peer(c); got != platform.UIDPeer(54321) {
					t.Errorf("peer is %v, want uid:54321", got)
				}
			})
		}
	}
}

// playSecluded serves from a pid namespace of its own and says whom it sees.
func playSecluded() error {
	h, err := childHost(os.Getenv("BASE"))
	if err != nil {
		return err
	}
	ln, err := h.Listen(context.Background(), platform.Listener{Network: "unix", Address: filepath.Join(os.Getenv("BASE"), "s.sock")})
	if err != nil {
		return err
	}
	fmt.Println("listening")
	c, err := ln.Accept()
	if err != nil {
		return err
	}
	fmt.Println("peer", h.Peer(c))
	return errors.Join(c.Close(), ln.Close())
}

// TestCallerOutsideThePidNamespaceIsNobody: the kernel has no pid for it here,
// and whoever is not of this machine's accounts is no administrator of it.
func TestCallerOutsideThePidNamespaceIsNobody(t *testing.T) {
	needRoot(t)
	base := filepath.Dir(testHost(t).dirs.State)
	p := start(t, "secluded", func(c *exec.Cmd) {
		c.Env = append(c.Env, "BASE="+base)
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	})
	if got := p.line(t); got != "listening" {
		t.Fatalf("child said %q", got)
	}
	c, err := net.Dial("unix", filepath.Join(base, "s.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // a test's connection
	if got := p.line(t); got != "peer unknown" {
		t.Errorf("it sees %q, want nobody", got)
	}
}

// TestCallerThatLeftIsNobody: the kernel answers uid 0 for it, without an error.
func TestCallerThatLeftIsNobody(t *testing.T) {
	needRoot(t)
	for _, fallback := range []bool{false, true} {
		h := testHost(t)
		h.without.sockDiag.Store(fallback)
		ln, err := h.Listen(t.Context(), platform.Listener{Network: "tcp4", Address: "127.0.0.1:0", Loopback: true})
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close() //nolint:errcheck // a test's listener
		p, c := call(t, ln)
		p.say(t, "leave")
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Fatalf("read: %v", err)
		}
		if got := h.Peer(c); got != platform.Unknown {
			t.Errorf("fallback=%v: a closed caller is %v", fallback, got)
		}
	}
}

// TestKernelReportsClosedSocketsAsRoot is why the rule exists; should it fail,
// the kernel has changed and the rule is still right.
func TestKernelReportsClosedSocketsAsRoot(t *testing.T) {
	needRoot(t)
	h := testHost(t)
	ln, err := h.Listen(t.Context(), platform.Listener{Network: "tcp4", Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() //nolint:errcheck // a test's listener
	p, c := call(t, ln)
	p.say(t, "leave")
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatalf("read: %v", err)
	}
	ours, _ := addrPort(c.LocalAddr())
	theirs, _ := addrPort(c.RemoteAddr())
	s, err := sockDiag(theirs, ours)
	t.Logf("kernel says %+v, %v", s, err)
	if err == nil && s.uid == 0 && s.inode != 0 {
		t.Errorf("a closed socket has inode %d: the rule would take it for root", s.inode)
	}
}

// TestDualStackClientIsFound: Java connects to 127.0.0.1 from an IPv6 socket.
func TestDualStackClientIsFound(t *testing.T) {
	for _, fallback := range []bool{false, true} {
		h := testHost(t)
		h.without.sockDiag.Store(fallback)
		ln, err := h.Listen(t.Context(), platform.Listener{Network: "tcp4", Address: "127.0.0.1:0", Loopback: true})
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close() //nolint:errcheck // a test's listener
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd) //nolint:errcheck // a test's socket
		to := &unix.SockaddrInet6{Port: ln.Addr().(*net.TCPAddr).Port, Addr: [16]byte{10: 0xff, 11: 0xff, 12: 127, 15: 1}}
		if err := unix.Connect(fd, to); err != nil {
			t.Fatal(err)
		}
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close() //nolint:errcheck // a test's connection
		if got := h.Peer(c); got != h.Self() {
			t.Errorf("fallback=%v: peer is %v, want %v", fallback, got, h.Self())
		}
	}
}

// TestConnectionsOfOtherKindsHaveNoPeer: a pipe in memory, a wrapped connection.
func TestConnectionsOfOtherKindsHaveNoPeer(t *testing.T) {
	h := testHost(t)
	a, b := net.Pipe()
	defer a.Close() //nolint:errcheck // in memory
	defer b.Close() //nolint:errcheck // in memory
	if got := h.Peer(a); got != platform.Unknown {
		t.Errorf("a pipe has the peer %v", got)
	}
	path := filepath.Join(filepath.Dir(h.dirs.State), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() //nolint:errcheck // a test's listener
	client, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close() //nolint:errcheck // a test's connection
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // a test's connection
	if got := h.Peer(wrapped{c}); got != h.Self() {
		t.Errorf("a wrapped connection has the peer %v, want %v", got, h.Self())
	}
}

// wrapped is a connection as crypto/tls wraps one.
type wrapped struct{ net.Conn }

func (w wrapped) NetConn() net.Conn { return w.Conn }

func TestOverflowUIDIsReadFromTheKernel(t *testing.T) {
	root := t.TempDir()
	if got := readOverflowUID(root); got != 65534 {
		t.Errorf("without the file it is %d", got)
	}
	write(t, root, "proc/sys/kernel/overflowuid", "4242\n")
	if got := readOverflowUID(root); got != 4242 {
		t.Errorf("got %d", got)
	}
	if h := (&Host{overflow: 4242}); h.mapped(4242) != platform.Unknown || h.mapped(65534) == platform.Unknown {
		t.Error("the overflow uid is not unknown, or another one is")
	}
}

func BenchmarkPeer(b *testing.B) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close() //nolint:errcheck // a benchmark's listener
	client, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close() //nolint:errcheck // a benchmark's connection
	c, err := ln.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // a benchmark's connection
	h, err := newHost(Options{}, noEnv)
	if err != nil {
		b.Fatal(err)
	}
	for _, fallback := range []bool{false, true} {
		b.Run(fmt.Sprintf("fallback=%v", fallback), func(b *testing.B) {
			h.without.sockDiag.Store(fallback)
			b.ReportAllocs()
			for b.Loop() {
				if h.Peer(c) != platform.UIDPeer(uint32(os.Geteuid())) {
					b.Fatal("wrong peer")
				}
			}
		})
	}
}
