//go:build linux

package main

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/crosscompile/qemu"
)

func TestClaimIsNotWrittenIntoWhatIsNoImage(t *testing.T) {
	dir := t.TempDir()
	claim := filepath.Join(dir, "claim")
	image := filepath.Join(dir, "image")
	for path, content := range map[string]string{claim: "x", image: strings.Repeat("not a disk ", 1000)} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := putClaim(t.Context(), image, claim); err == nil || !strings.Contains(err.Error(), "no partition table") {
		t.Errorf("putClaim: %v", err)
	}
	if content, err := os.ReadFile(image); err != nil || !strings.HasPrefix(string(content), "not a disk") {
		t.Errorf("the file was changed: %v", err)
	}
	if err := os.Truncate(claim, 0); err != nil {
		t.Fatal(err)
	}
	if err := putClaim(t.Context(), image, claim); err == nil || !strings.Contains(err.Error(), "claim is empty") {
		t.Errorf("an empty claim: %v", err)
	}
	if err := putClaim(t.Context(), filepath.Join(dir, "missing"), claim); err == nil {
		t.Error("putClaim into a missing image: no error")
	}
}

// TestClaimIsNotWrittenWhereAJournalWouldUndoIt: a device that was switched off
// plays its journal at the next start, over the claim.
func TestClaimIsNotWrittenWhereAJournalWouldUndoIt(t *testing.T) {
	qemu.Tools(t, "mke2fs", "debugfs")
	const start, superblock, incompatible, needsRecovery = 1 << 20, 1024, 0x60, 4
	dir, tree := t.TempDir(), t.TempDir()
	if err := os.Mkdir(filepath.Join(tree, "factory"), 0o755); err != nil {
		t.Fatal(err)
	}
	data, claim, image := filepath.Join(dir, "data"), filepath.Join(dir, "claim"), filepath.Join(dir, "image")
	if err := call(t.Context(), "mke2fs", "-q", "-t", "ext4", "-O", "^metadata_csum", "-d", tree, data, "8M"); err != nil {
		t.Fatal(err)
	}
	system, err := os.ReadFile(data)
	if err != nil {
		t.Fatal(err)
	}
	disk := append(make([]byte, start), system...)
	copy(disk[sector:], "EFI PART")
	binary.LittleEndian.PutUint64(disk[sector+72:], 2)
	binary.LittleEndian.PutUint32(disk[sector+80:], 1)
	binary.LittleEndian.PutUint32(disk[sector+84:], 128)
	binary.LittleEndian.PutUint64(disk[2*sector+32:], start/sector)
	copy(disk[2*sector+56:], "d\x00a\x00t\x00a\x00")
	for _, dirty := range []bool{false, true} {
		if dirty {
			disk[start+superblock+incompatible] |= needsRecovery
		}
		for path, content := range map[string][]byte{claim: []byte("claim"), image: disk} {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		err := putClaim(t.Context(), image, claim)
		if dirty != (err != nil && strings.Contains(err.Error(), "was switched off while it ran")) {
			t.Errorf("needs recovery %v: %v", dirty, err)
		}
	}
}
