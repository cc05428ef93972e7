//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/crosscompile/qemu"
)

// testImage is the demo image with the probe, and a claim on its data partition.
func testImage(t *testing.T, dir, claim string) string {
	t.Helper()
	image, err := build(t.Context(), dir, testSystem(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	if err := putClaim(t.Context(), image, claim); err != nil {
		t.Fatal(err)
	}
	return image
}

// testSystem is what the image holds, and the probe.
func testSystem(t *testing.T, dir string) system {
	t.Helper()
	project, err := qemu.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	probe := filepath.Join(dir, "probe")
	if err := compile(t.Context(), project, probe, "arm64", "./crosscompile/images/probe"); err != nil {
		t.Fatal(err)
	}
	return system{extra: map[string]string{"usr/bin/probe": probe}, inittab: []string{"::respawn:/usr/bin/probe"}}
}

// updateDisk holds an update as the bytes of a disk.
func updateDisk(t *testing.T, dir, name string, s system) qemu.Disk {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := bundle(t.Context(), path, s); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, (info.Size()+sector-1)/sector*sector); err != nil {
		t.Fatal(err)
	}
	return qemu.Disk{File: path, ReadOnly: true}
}

var ours = board{serial: "PDEMO-0001", mac: "52:54:00:12:34:01"}

func TestFlashedImageProvisionsItselfAndServesOffline(t *testing.T) {
	qemu.Need(t, "short")
	tools(t, uboot)
	dir, ca := t.TempDir(), newSite(t)
	image := testImage(t, dir, ca.claim("demo-1"))

	m := ours.start(t, image, ca.port)
	m.must("postern", "wait", "--for", "connected", "--timeout", "180s")
	before := m.identity()
	first := m.token()
	m.gone("/data/factory/claim")
	if words := m.refused("cp", "/etc/hostname", "/etc/written"); !strings.Contains(words, "Read-only") {
		t.Errorf("the root can be written: %s", words)
	}
	m.owned("/data/postern/identity.db")
	m.off()

	ca.stop()
	m = ours.start(t, image, 0)
	if m.identity() != before {
		t.Error("a restart without network changed the identity")
	}
	if m.token() != first {
		t.Error("the cached token was not served after a restart without network")
	}
	m.off()
}

// TestIdentityOutlivesSlotSwitchRollbackResetAndCopy plays what happens to a device in
// the field, on one image: a good update, a bad one, a factory reset, and a thief.
func TestIdentityOutlivesSlotSwitchRollbackResetAndCopy(t *testing.T) {
	qemu.Need(t, "full")
	tools(t, uboot)
	dir, ca := t.TempDir(), newSite(t)
	good := testSystem(t, dir)
	bad := good
	bad.broken = true
	updates := []qemu.Disk{updateDisk(t, dir, "good.tar", good), updateDisk(t, dir, "bad.tar", bad), damaged(t, dir, "good.tar")}
	image := testImage(t, dir, ca.claim("demo-1"))

	m := ours.start(t, image, ca.port, updates...)
	m.must("postern", "wait", "--for", "connected", "--timeout", "180s")
	before, first := m.identity(), m.token()
	m.gone("/data/factory/claim")
	m.switches(before, first)
	m.rollsBack(before, first)
	m.moves(image, dir, before)
	m.resets(ca, image, before, updates)
}

// TestSameImageBootsByUEFI switches and rolls back with the firmware that PCs
// and server boards have; the attempts are counted in the names of boot entries.
func TestSameImageBootsByUEFI(t *testing.T) {
	qemu.Need(t, "full")
	tools(t, uefi)
	dir, ca := t.TempDir(), newSite(t)
	good := testSystem(t, dir)
	bad := good
	bad.broken = true
	updates := []qemu.Disk{updateDisk(t, dir, "good.tar", good), updateDisk(t, dir, "bad.tar", bad), damaged(t, dir, "good.tar")}
	image := testImage(t, dir, ca.claim("demo-1"))
	m := board{mac: ours.mac, uefi: true}.start(t, image, ca.port, updates...)
	m.must("postern", "wait", "--for", "connected", "--timeout", "180s")
	identity, token := m.identity(), m.token()
	m.gone("/data/factory/claim")
	m.switches(identity, token)
	m.rollsBack(identity, token)
	m.off()
}
