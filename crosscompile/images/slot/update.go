//go:build linux

package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"postern/crosscompile/images/slots"
)

const boot = "/boot"

// confirm makes the slot that runs the good one.
func (d *device) confirm() error {
	if d.running == "" {
		return errors.New("the kernel's command line names no slot")
	}
	if err := slots.Write(d.record, slots.Record{Good: d.running}); err != nil {
		return err
	}
	return d.withBoot(func() error {
		for _, name := range entries(d.running) {
			if name != slots.EntryName(d.running, false) {
				return rename(name, slots.EntryName(d.running, false))
			}
		}
		return nil
	})
}

// forget ends a trial that did not prove itself. Its system stays where it is,
// and nothing boots it.
func (d *device) forget() error {
	if d.running == "" || d.Trial == "" && d.Good == d.running {
		return nil
	}
	if d.onTrial() {
		return errors.New("the slot that runs is on trial: slot confirm, or restart")
	}
	if err := d.withBoot(func() error { return d.removeEntries(slots.Other(d.running)) }); err != nil {
		return err
	}
	return slots.Write(d.record, slots.Record{Good: d.running})
}

// removeEntries takes a slot from the boot loader of UEFI.
func (d *device) removeEntries(slot string) error {
	for _, name := range entries(slot) {
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

// update writes a system into the slot that does not run, and only when all of
// it is durable puts that slot on trial.
func (d *device) update(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	other := slots.Other(d.running)
	if d.running == "" || d.onTrial() {
		return errors.New("the slot that runs has not proven itself yet: wait for slot confirm")
	}
	// what is about to be overwritten must not be tried, whatever an earlier update left
	if err := slots.Write(d.record, slots.Record{Good: d.running}); err != nil {
		return err
	}
	err = d.withBoot(func() error {
		if err := d.removeEntries(other); err != nil {
			return err
		}
		return d.unpack(tar.NewReader(f), other)
	})
	if err != nil {
		return fmt.Errorf("nothing is on trial, slot %s runs on: %w", d.running, err)
	}
	if err := d.withBoot(func() error { return addEntry(other) }); err != nil {
		return err
	}
	id := strconv.FormatInt(time.Now().UnixNano(), 36)
	return slots.Write(d.record, slots.Record{Good: d.running, Trial: other, ID: id})
}

// unpack writes what the update holds; it must hold all three files.
func (d *device) unpack(r *tar.Reader, slot string) error {
	root, err := partition("rootfs-" + slot)
	if err != nil {
		return err
	}
	to := map[string]string{
		"vmlinuz": filepath.Join(boot, slot, "vmlinuz"), "initrd": filepath.Join(boot, slot, "initrd"), "root.squashfs": root,
	}
	for len(to) > 0 {
		h, err := r.Next()
		if err != nil {
			return fmt.Errorf("the update is incomplete: %w", err)
		}
		path, wanted := to[h.Name]
		if !wanted {
			return fmt.Errorf("the update holds %q, which has no place here", h.Name)
		}
		delete(to, h.Name)
		if err := write(path, r); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	return nil
}

func write(path string, r io.Reader) error {
	flags := os.O_WRONLY
	if !strings.HasPrefix(path, "/dev/") {
		flags |= os.O_CREATE | os.O_TRUNC
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(path, flags, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Sync(), f.Close())
}

// withBoot runs do with the boot partition mounted writable.
func (d *device) withBoot(do func() error) error {
	path, err := partition("boot")
	if err != nil {
		return err
	}
	if err := syscall.Mount(path, boot, "vfat", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC|syscall.MS_SYNCHRONOUS, ""); err != nil {
		return fmt.Errorf("mount the boot partition: %w", err)
	}
	err = do()
	syscall.Sync()
	return errors.Join(err, syscall.Unmount(boot, 0))
}

// entries are the boot entries of a slot, with whatever attempts they have left.
func entries(slot string) []string {
	found, err := filepath.Glob(filepath.Join(boot, "loader/entries/postern-"+slot+"*.conf"))
	if err != nil {
		return nil
	}
	return found
}

// trialEntry reports whether the slot's entry still counts attempts. U-Boot
// does not look at entries, so they count only where UEFI has booted.
func (d *device) trialEntry(slot string) bool {
	if _, err := os.Stat("/sys/firmware/efi"); err != nil {
		return false
	}
	trial := false
	err := d.withBoot(func() error {
		for _, name := range entries(slot) {
			trial = trial || strings.Contains(filepath.Base(name), "+")
		}
		return nil
	})
	return err == nil && trial
}

// addEntry puts a slot before all others for the boot loader of UEFI.
func addEntry(slot string) error {
	version := 0
	for _, name := range entries(slots.Other(slot)) {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			if v, ok := strings.CutPrefix(line, "version "); ok {
				n, err := strconv.Atoi(strings.TrimSpace(v))
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				version = max(version, n)
			}
		}
	}
	path := filepath.Join(boot, "loader/entries", slots.EntryName(slot, true))
	temporary := path + ".tmp"
	if err := write(temporary, strings.NewReader(slots.Entry(slot, version+1))); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

func rename(from, name string) error {
	return os.Rename(from, filepath.Join(filepath.Dir(from), name))
}
