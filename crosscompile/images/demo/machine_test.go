//go:build linux

package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/crosscompile/images/probe/ask"
	"postern/crosscompile/qemu"
)

var _ = qemu.Flag()

// board is hardware as the agent sees it.
type board struct {
	serial, mac string
	uefi        bool
}

// machine is one start of a board with an image.
type machine struct {
	t     *testing.T
	vm    *qemu.VM
	conns chan net.Conn
	conn  net.Conn
	lines *bufio.Scanner
	asked int
}

// A guest under emulation on a busy host is slow; nothing here waits that long
// unless something is wrong.
const (
	bootLimit = 3 * time.Minute
	askLimit  = 4 * time.Minute
)

// start powers a board on. authority is the port of the authority on this
// host's loopback, 0 for a pulled cable; the guest reaches nothing else.
func (b board) start(t *testing.T, image string, authority int, disks ...qemu.Disk) *machine {
	t.Helper()
	dir := t.TempDir()
	socket := filepath.Join(shortDir(t), "probe")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, conns: make(chan net.Conn, 8)}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			m.conns <- c
		}
	}()
	spec := qemu.Spec{
		Arch: "arm64", MemMB: 192, Reboot: true, Disks: append([]qemu.Disk{{File: image}}, disks...),
		Firmware: uboot,
		Extra: []string{
			"-chardev", "socket,id=probe,path=" + socket, "-device", "virtserialport,chardev=probe,name=" + ask.Port,
		},
	}
	if b.uefi {
		spec.Firmware, spec.MemMB = uefi, 512
	} else {
		spec.Extra = append(spec.Extra, "-dtb", deviceTree(t, dir, b.serial))
	}
	network := "user,id=net,restrict=on"
	if authority != 0 {
		network += fmt.Sprintf(",guestfwd=tcp:%s-cmd:busybox nc 127.0.0.1 %d", authorityAddress, authority)
	}
	spec.Extra = append(spec.Extra, "-netdev", network, "-device", "virtio-net-pci,netdev=net,mac="+b.mac+",romfile=")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	if m.vm, err = qemu.Start(ctx, spec); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console:\n%s", m.vm.Tail(60))
		}
		_ = m.vm.Close()
		cancel()
		_ = l.Close()
	})
	select {
	case m.conn = <-m.conns:
	case <-time.After(time.Minute):
		t.Fatal("the emulator did not open the port")
	}
	m.lines = bufio.NewScanner(m.conn)
	m.lines.Buffer(nil, 4<<20)
	m.awaitHello()
	return m
}

// authorityAddress is where the guest finds the authority.
const authorityAddress = "10.0.2.100:8443"

// The two firmwares. The board has other devices with a firmware than without.
const (
	uboot = "/usr/lib/u-boot/qemu_arm64/u-boot.bin"
	uefi  = "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd"
)

// deviceTree is the board's own, with a serial number.
func deviceTree(t *testing.T, dir, serial string) string {
	t.Helper()
	file := filepath.Join(dir, "board.dtb")
	for _, args := range [][]string{
		{"qemu-system-aarch64", "-M", "virt,dumpdtb=" + file, "-cpu", "cortex-a72", "-m", "192", "-smp", "1", "-nographic", "-nodefaults", "-bios", uboot},
		{"fdtput", "-t", "s", file, "/", "serial-number", serial},
	} {
		if err := call(t.Context(), args[0], args[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

// shortDir is a folder whose path fits into a socket's address.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pdemo-") //nolint:usetesting // t.TempDir is too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// awaitHello waits until the guest is up, for the first time or after a restart.
func (m *machine) awaitHello() {
	m.t.Helper()
	a, err := m.read(bootLimit)
	if err != nil || a.ID != 0 {
		m.t.Fatalf("the image does not come up: %v %+v", err, a)
	}
	m.asked = 0
}

func (m *machine) read(limit time.Duration) (ask.Answer, error) {
	if err := m.conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return ask.Answer{}, err
	}
	if !m.lines.Scan() {
		return ask.Answer{}, fmt.Errorf("the guest went silent: %w", cmp.Or(m.lines.Err(), io.ErrUnexpectedEOF))
	}
	var a ask.Answer
	return a, json.Unmarshal(m.lines.Bytes(), &a)
}

// try runs a command in the guest.
func (m *machine) try(args ...string) ask.Answer {
	m.t.Helper()
	m.asked++
	line, err := json.Marshal(ask.Question{ID: m.asked, Args: args})
	if err != nil {
		m.t.Fatal(err)
	}
	if _, err := m.conn.Write(append(line, '\n')); err != nil {
		m.t.Fatal(err)
	}
	a, err := m.read(askLimit)
	if err != nil || a.ID != m.asked {
		m.t.Fatalf("%v: %v %+v", args, err, a)
	}
	return a
}

// must runs a command that has to succeed and returns its output.
func (m *machine) must(args ...string) string {
	m.t.Helper()
	a := m.try(args...)
	if a.Code != 0 {
		m.t.Fatalf("%s: exit %d\n%s%s", strings.Join(args, " "), a.Code, a.Out, a.Err)
	}
	return strings.TrimSpace(a.Out)
}

// refused runs a command that must not succeed and returns its words.
func (m *machine) refused(args ...string) string {
	m.t.Helper()
	a := m.try(args...)
	if a.Code == 0 {
		m.t.Fatalf("%s: went well, and must not\n%s", strings.Join(args, " "), a.Out)
	}
	return a.Err
}

// restart lets the guest restart by itself and waits until it is back.
func (m *machine) restart() {
	m.t.Helper()
	m.must("reboot")
	m.awaitHello()
}

// off powers the guest off and waits until the machine has ended.
func (m *machine) off() {
	m.t.Helper()
	m.must("poweroff")
	ctx, cancel := context.WithTimeout(context.Background(), bootLimit)
	defer cancel()
	if err := m.vm.Wait(ctx); err != nil {
		m.t.Fatal(err)
	}
}

// status is what the guest's agent says of itself.
func (m *machine) status() status {
	m.t.Helper()
	m.must("postern", "wait", "--for", "ready", "--timeout", "120s")
	a := m.try("postern", "status", "--json")
	var s status
	if err := json.Unmarshal([]byte(a.Out), &s); err != nil {
		m.t.Fatalf("status: %v\n%s%s", err, a.Out, a.Err)
	}
	return s
}

type status struct {
	State      string `json:"state"`
	Identities []struct {
		ClientID string `json:"client_id"`
	} `json:"identities"`
}

// slot is what the guest's slot program says.
func (m *machine) slot() (running, good, trial string) {
	m.t.Helper()
	var s struct{ Running, Good, Trial string }
	if err := json.Unmarshal([]byte(m.must("slot", "show")), &s); err != nil {
		m.t.Fatal(err)
	}
	return s.Running, s.Good, s.Trial
}

// tools are what the tests need beside a Go compiler.
func tools(t *testing.T, more ...string) {
	t.Helper()
	qemu.Tools(t, append([]string{
		"qemu-system-aarch64", "genimage", "mksquashfs", "mkfs.vfat", "mcopy", "mke2fs", "debugfs", "mkimage", "fdtput", "busybox", "modprobe", "depmod",
	}, more...)...)
}
