//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"postern/crosscompile/images/slots"
	"postern/crosscompile/qemu"
)

// The layout. Slots have room to grow from the first release on: partitions
// that are in the field never move.
const (
	imageName = "postern-demo.img"
	layout    = `image boot.vfat { vfat { extraargs = "-i 504f5354" files = { "boot.scr", "a", "EFI", "loader" } } size = 96M }
image data.ext4 { ext4 { use-mke2fs = true label = "data" extraargs = "-m 0" } mountpoint = "/data" size = 32M }
image ` + imageName + ` {
	hdimage { partition-table-type = "gpt" align = 1M }
	partition boot { image = "boot.vfat" partition-type-uuid = "U" bootable = true }
	partition slots { image = "slots" partition-type-uuid = "L" size = 1M }
	partition rootfs-a { image = "root.squashfs" partition-type-uuid = "L" size = 16M }
	partition rootfs-b { partition-type-uuid = "L" size = 16M }
	partition data { image = "data.ext4" partition-type-uuid = "L" }
}
`
)

// build writes the image to the folder out and returns its path.
func build(ctx context.Context, out string, s system) (string, error) {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(out, ".build-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(work) }()
	input := filepath.Join(work, "input")
	if err := os.MkdirAll(filepath.Join(input, "a"), 0o755); err != nil {
		return "", err
	}
	if err := s.make(ctx, filepath.Join(input, "a")); err != nil {
		return "", err
	}
	if err := os.Rename(filepath.Join(input, "a", rootFile), filepath.Join(input, rootFile)); err != nil {
		return "", err
	}
	if err := errors.Join(bootFiles(ctx, input), recordFile(filepath.Join(input, "slots"))); err != nil {
		return "", err
	}
	if err := genimage(ctx, work, input); err != nil {
		return "", err
	}
	image := filepath.Join(out, imageName)
	return image, os.Rename(filepath.Join(work, "images", imageName), image)
}

// bootFiles adds what the two firmwares look for: the script of U-Boot, and
// for UEFI a boot loader that counts attempts in the names of its entries.
func bootFiles(ctx context.Context, input string) error {
	script, err := files.ReadFile("files/boot.cmd")
	if err != nil {
		return err
	}
	source := filepath.Join(input, "boot.cmd")
	if err := os.WriteFile(source, script, 0o644); err != nil {
		return err
	}
	if err := call(ctx, "mkimage", "-A", "arm64", "-T", "script", "-C", "none", "-n", "slots", "-d", source, filepath.Join(input, "boot.scr")); err != nil {
		return err
	}
	loader, err := qemu.FetchPackage(ctx, "systemd-boot-efi", "arm64")
	if err != nil {
		return err
	}
	conf, err := files.ReadFile("files/loader.conf")
	if err != nil {
		return err
	}
	if err := copyFile(filepath.Join(input, "EFI/BOOT/BOOTAA64.EFI"), filepath.Join(loader, "usr/lib/systemd/boot/efi/systemd-bootaa64.efi"), 0o644); err != nil {
		return err
	}
	entries := filepath.Join(input, "loader/entries")
	if err := os.MkdirAll(entries, 0o755); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(input, "loader/loader.conf"), conf, 0o644),
		os.WriteFile(filepath.Join(entries, slots.EntryName("a", false)), []byte(slots.Entry("a", 1)), 0o644))
}

// recordFile is the first record: slot a is good.
func recordFile(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(slots.Attempts+slots.Size), slots.Write(f, slots.Record{Good: "a"}), f.Close())
}

func genimage(ctx context.Context, work, input string) error {
	root := filepath.Join(work, "root")
	if err := os.MkdirAll(filepath.Join(root, "data", "factory"), 0o755); err != nil {
		return err
	}
	cfg := filepath.Join(work, "genimage.cfg")
	if err := os.WriteFile(cfg, []byte(layout), 0o644); err != nil {
		return err
	}
	return call(ctx, "genimage", "--config", cfg, "--inputpath", input, "--rootpath", root,
		"--tmppath", filepath.Join(work, "tmp"), "--outputpath", filepath.Join(work, "images"))
}

// bundle writes an update: a tar with the three files of a system.
func bundle(ctx context.Context, to string, s system) error {
	work, err := os.MkdirTemp(filepath.Dir(to), ".update-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	if err := s.make(ctx, work); err != nil {
		return err
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	w := tar.NewWriter(f)
	for _, name := range []string{kernelFile, initrdFile, rootFile} {
		if err = errors.Join(err, addFile(w, filepath.Join(work, name), name)); err != nil {
			break
		}
	}
	return errors.Join(err, w.Close(), f.Close())
}

func addFile(w *tar.Writer, path, name string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: info.Size()}); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}

// putClaim writes a claim onto the data partition of an image that lies in a
// file, as a factory does before it flashes: private to root from the start.
func putClaim(ctx context.Context, image, claim string) error {
	for _, path := range []string{image, claim} {
		if info, err := os.Stat(path); err != nil {
			return err
		} else if info.Size() == 0 { // what a command that failed leaves behind its ">"
			return fmt.Errorf("%s is empty", path)
		}
	}
	offset, err := partitionOffset(image, "data")
	if err != nil {
		return err
	}
	debugfs, err := qemu.Find("debugfs")
	if err != nil {
		return err
	}
	place := fmt.Sprintf("%s?offset=%d", image, offset)
	features, err := exec.CommandContext(ctx, debugfs, "-R", "features", place).CombinedOutput()
	if err != nil {
		return fmt.Errorf("debugfs: %w\n%s", err, features)
	}
	if bytes.Contains(features, []byte("needs_recovery")) { // its journal would undo what is written now
		return fmt.Errorf("%s was switched off while it ran: start it and let it go down, or build it anew with go run ./crosscompile/images/demo build", image)
	}
	commands := "cd /factory\nrm claim\nwrite " + claim + " claim\nsif claim mode 0100600\nsif claim uid 0\nsif claim gid 0\n"
	cmd := exec.CommandContext(ctx, debugfs, "-w", "-f", "-", place)
	cmd.Stdin = strings.NewReader(commands)
	words, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("debugfs: %w\n%s", err, words)
	}
	if !bytes.Contains(words, []byte("Allocated inode")) {
		return fmt.Errorf("debugfs wrote no claim:\n%s", words)
	}
	return nil
}
