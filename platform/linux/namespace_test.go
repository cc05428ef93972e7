//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"postern/platform"
	"postern/platform/platformtest"
)

// isolated runs f in a network namespace of its own, whose loopback device is
// down and has no address.
func isolated(t *testing.T, f func(h *Host) error) {
	t.Helper()
	h := testHost(t)
	platformtest.InNamespace(t, unix.CLONE_NEWNET, func() {
		if err := f(h); err != nil {
			t.Error(err)
		}
	})
}

// ip runs the system's tool in the namespace of the calling thread.
func ip(args string) error {
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", args, err, out)
	}
	return nil
}

// playNeighbour is another machine: in a network namespace of its own, with
// one end of a cable, it asks for the addresses that it is told.
func playNeighbour() error {
	hear := stdin()
	fmt.Println("born")
	if hear() != "connected" {
		return errors.New("no cable")
	}
	for _, args := range []string{"link set neighbour up", "addr add 192.0.2.2/24 dev neighbour", "route add 169.254.169.254/32 via 192.0.2.1"} {
		if err := ip(args); err != nil {
			return err
		}
	}
	for address := hear(); address != ""; address = hear() {
		c, err := net.DialTimeout("tcp4", address, 5*time.Second)
		switch {
		case err == nil:
			fmt.Println("reached")
			_ = c.Close()
		case errors.Is(err, unix.ECONNREFUSED):
			fmt.Println("refused")
		default:
			fmt.Println(err)
		}
	}
	return nil
}

// TestNeighbourCannotReachTheIMDSAddress: Linux answers for every local address
// on every device, so without SO_BINDTODEVICE a neighbour gets the identity.
// The listener beside it, without the bind, shows that the way is open.
func TestNeighbourCannotReachTheIMDSAddress(t *testing.T) {
	needRoot(t)
	platformtest.NeedFeature(t, platformtest.Namespaces)
	h := testHost(t)
	platformtest.InNamespace(t, unix.CLONE_NEWNET, func() {
		if err := neighbourhood(t, h); err != nil {
			t.Error(err)
		}
	})
}

func neighbourhood(t *testing.T, h *Host) error {
	const imds, open = "169.254.169.254:80", "169.254.169.254:81"
	p := start(t, "neighbour", func(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET} })
	if line, err := p.out.ReadString('\n'); line != "born\n" {
		return fmt.Errorf("neighbour said %q, %w", line, err)
	}
	for _, args := range []string{
		"link set lo up", "link add cable type veth peer name neighbour", fmt.Sprintf("link set neighbour netns %d", p.Process.Pid),
		"addr add 192.0.2.1/24 dev cable", "link set cable up", "route add local 169.254.169.254/32 dev lo",
	} {
		if err := ip(args); err != nil {
			return err
		}
	}
	for address, loopback := range map[string]bool{imds: true, open: false} {
		ln, err := h.Listen(context.Background(), platform.Listener{Name: "imds", Network: "tcp4", Address: address, Loopback: loopback})
		if err != nil {
			return err
		}
		defer ln.Close() //nolint:errcheck // a test's listener
	}
	c, err := net.DialTimeout("tcp4", imds, 5*time.Second)
	if err != nil {
		return fmt.Errorf("a local caller: %w", err)
	}
	_ = c.Close()
	if _, err := fmt.Fprintln(p.in, "connected"); err != nil {
		return err
	}
	for address, want := range map[string]string{imds: "refused\n", open: "reached\n"} {
		if _, err := fmt.Fprintln(p.in, address); err != nil {
			return err
		}
		if got, err := p.out.ReadString('\n'); got != want {
			return fmt.Errorf("neighbour asking %s: %q, %w, want %q", address, got, err, want)
		}
	}
	return nil
}

func TestMemoryAndReadOnlyFileSystemsAreToldApart(t *testing.T) {
	needRoot(t)
	h := testHost(t)
	platformtest.InNamespace(t, unix.CLONE_NEWNS, func() {
		dir := h.dirs.State
		if err := errors.Join(os.Mkdir(dir, 0o700), unix.Mount("tmpfs", dir, "tmpfs", unix.MS_RDONLY, "size=1m")); err != nil {
			t.Error(err)
			return
		}
		f, err := h.FileSystem(dir + "/sub/identity.db")
		if err != nil || f.Type != "tmpfs" || !f.Volatile || !f.ReadOnly || f.Remote || f.Free > 1<<20 {
			t.Errorf("got %+v, %v", f, err)
		}
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
}
