//go:build linux

// Command slot is the model image's side of its two system slots. Products
// have RAUC, SWUpdate or Mender for this; what matters here is that the
// identity lies outside of the slots, and that a slot proves itself by an
// agent that answers.
//
//	slot show             # which slot runs, which is good, which is on trial
//	slot pending          # exit 0 when the slot that runs is on trial
//	slot confirm          # the slot that runs is good from now on
//	slot forget           # the other slot is not on trial any more
//	slot update FILE      # writes a system into the other slot and tries it at the next start
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"postern/crosscompile/images/slots"
)

func main() {
	err := run(os.Args[1:])
	switch {
	case errors.Is(err, errNotPending):
		os.Exit(1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "slot:", err)
		os.Exit(2)
	}
}

var errNotPending = errors.New("no trial is pending")

func run(args []string) error {
	d, err := open()
	if err != nil {
		return err
	}
	defer func() { _ = d.record.Close() }()
	switch strings.Join(args, " ") {
	case "show":
		fmt.Printf("{\"running\":%q,\"good\":%q,\"trial\":%q}\n", d.running, d.Good, d.Trial)
		return nil
	case "pending":
		if d.onTrial() {
			return nil
		}
		return errNotPending
	case "confirm":
		return d.confirm()
	case "forget":
		return d.forget()
	}
	if len(args) == 2 && args[0] == "update" {
		return d.update(args[1])
	}
	return errors.New("usage: slot show | pending | confirm | forget | update FILE")
}

// device is what this program changes.
type device struct {
	slots.Record
	record  *os.File
	running string
}

func open() (*device, error) {
	path, err := partition("slots")
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	d := &device{record: f, running: runningSlot()}
	d.Record, err = slots.Read(f)
	if errors.Is(err, slots.ErrNone) && d.running != "" {
		// the boot loader chose without a record: what runs is what works
		d.Good, err = d.running, nil
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return d, nil
}

func (d *device) onTrial() bool {
	if d.running != d.Trial {
		return d.trialEntry(d.running) // a boot under UEFI keeps the trial in the entry's name
	}
	return true
}

// runningSlot is what the boot loader put on the kernel's command line.
func runningSlot() string {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return ""
	}
	for word := range strings.FieldsSeq(string(line)) {
		if slot, ok := strings.CutPrefix(word, "slot="); ok && (slot == "a" || slot == "b") {
			return slot
		}
	}
	return ""
}

// partition finds a partition by its name in the table; there is no udev.
func partition(name string) (string, error) {
	found, err := filepath.Glob("/sys/class/block/*/uevent")
	if err != nil {
		return "", err
	}
	for _, path := range found {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		device, is := "", false
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			is = is || key == "PARTNAME" && value == name
			if key == "DEVNAME" {
				device = "/dev/" + value
			}
		}
		if is {
			return device, nil
		}
	}
	return "", fmt.Errorf("no disk has a partition %q", name)
}
