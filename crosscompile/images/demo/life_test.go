//go:build linux

package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/crosscompile/qemu"
)

// The disks with updates, in the order of their places.
const (
	goodUpdate    = "/dev/vdb"
	badUpdate     = "/dev/vdc"
	damagedUpdate = "/dev/vdd"
)

// damaged is the first half of an update.
func damaged(t *testing.T, dir, name string) qemu.Disk {
	t.Helper()
	from, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = from.Close() }()
	path := filepath.Join(dir, "damaged.tar")
	to, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(to, from, 28<<20); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return qemu.Disk{File: path, ReadOnly: true}
}

// switches boots a good update: it proves itself and becomes the good slot.
func (m *machine) switches(identity, token string) {
	m.t.Helper()
	m.must("slot", "update", goodUpdate)
	if running, good, trial := m.slot(); running != "a" || good != "a" || trial != "b" {
		m.t.Fatalf("after the update: runs %s, good %s, on trial %s", running, good, trial)
	}
	m.restart()
	m.keeps("b", identity, token)
	m.confirmed("b")
}

// rollsBack boots an update without an agent: after its attempts the device is
// back where it was. An update that is cut off is never tried at all.
func (m *machine) rollsBack(identity, token string) {
	m.t.Helper()
	if words := m.refused("slot", "update", damagedUpdate); !strings.Contains(words, "nothing is on trial") {
		m.t.Errorf("half an update: %s", words)
	}
	m.must("slot", "update", badUpdate)
	m.must("reboot")
	boots := 0
	for {
		m.awaitHello()
		boots++
		if running, _, _ := m.slot(); running == "b" {
			break
		}
		if boots > 4 {
			m.t.Fatal("the device does not come back from a slot that does not prove itself")
		}
	}
	if boots < 2 {
		m.t.Error("the bad slot was never booted")
	}
	m.keeps("b", identity, token)
	m.confirmed("b") // the trial is forgotten
	m.t.Logf("back in slot b at start %d", boots)
}

// keeps checks that everything is as it was, in the slot that should run.
func (m *machine) keeps(slot, identity, token string) {
	m.t.Helper()
	if running, _, _ := m.slot(); running != slot {
		m.t.Errorf("slot %s runs, want %s", running, slot)
	}
	if now := m.identity(); now != identity {
		m.t.Errorf("in slot %s the identity is %s, was %s", slot, now, identity)
	}
	if m.token() != token {
		m.t.Errorf("in slot %s the cached token is another", slot)
	}
}

// confirmed waits until the slot that runs is the good one.
func (m *machine) confirmed(slot string) {
	m.t.Helper()
	for range 100 {
		if _, good, trial := m.slot(); good == slot && trial == "" {
			return
		}
		m.must("usleep", "200000")
	}
	m.t.Fatalf("slot %s is not confirmed", slot)
}

// moves boots a copy of the whole disk on another board: it must give out
// nothing, until somebody says that the hardware was changed.
func (m *machine) moves(image, dir, identity string) {
	m.t.Helper()
	m.off()
	clone := filepath.Join(dir, "clone.img")
	if err := copyFile(clone, image, 0o600); err != nil {
		m.t.Fatal(err)
	}
	thief := board{serial: "PDEMO-6666", mac: "52:54:00:66:66:66"}.start(m.t, clone, 0)
	if s := thief.status(); s.State != "Moved" {
		m.t.Errorf("a copy on another board is %s, want Moved", s.State)
	}
	words := thief.refused("postern", "token", "--resource", resource)
	if !strings.Contains(words, "adopt") && !strings.Contains(words, "reset") {
		m.t.Errorf("Moved names no cure: %s", words)
	}
	thief.must("postern", "adopt", "--hardware-changed")
	if thief.identity() != identity {
		m.t.Error("adopt changed the identity")
	}
	thief.off()
}

// resets makes the device as it was when it was flashed; a new claim gives it
// a new identity.
func (m *machine) resets(ca *site, image, identity string, updates []qemu.Disk) {
	m.t.Helper()
	d := ours.start(m.t, image, ca.port, updates...)
	if d.identity() != identity {
		m.t.Error("the original has another identity since it was copied")
	}
	key := d.must("/bin/busybox", "sha256sum", "/data/postern/kek")
	d.must("postern", "reset", "--all", "--yes")
	if s := d.status(); s.State != "Unenrolled" {
		m.t.Errorf("after a reset the device is %s, want Unenrolled", s.State)
	}
	if d.try("/bin/busybox", "sha256sum", "/data/postern/kek").Out == key+"\n" {
		m.t.Error("a reset left the key that the databases were sealed with")
	}
	d.off()
	if err := putClaim(m.t.Context(), image, ca.claim("demo-2")); err != nil {
		m.t.Fatal(err)
	}
	d = ours.start(m.t, image, ca.port)
	d.must("postern", "wait", "--for", "connected", "--timeout", "180s")
	if d.identity() == identity {
		m.t.Error("after a reset and with a new claim the device has its old identity")
	}
	d.off()
}
