// Package slots keeps the record of which of two system slots a device boots:
// the one that is good, and perhaps one that is on trial. The boot loader reads
// it before there is a system and counts the attempts of a trial; the system
// writes it.
//
// The record lies in a partition of its own, in the format of a U-Boot
// environment (a CRC-32, then NAME=VALUE strings), so that a boot script reads
// it with "env import -c". A power cut must not lose it: the system writes one
// copy, waits until it is durable, then writes the other; whoever reads takes
// the first copy whose sum is right. The attempts are counted by the boot
// loader in a third place, which the system never writes: when a cut tears
// that one, a trial has an attempt more, and nothing else is lost.
package slots

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sort"
	"strings"
)

// The places in the partition, in bytes. Each record has Size bytes.
const (
	First    = 0
	Second   = 4096
	Attempts = 8192
	Size     = 4096
)

// Tries is how often a slot on trial is booted before the good one is again.
const Tries = 3

// ErrNone means that neither copy of the record can be read.
var ErrNone = errors.New("slots: no readable record")

// Record says what is booted.
type Record struct {
	Good  string // "a" or "b": has proven itself
	Trial string // "a", "b", or empty: booted next, for Tries times at most
	ID    string // a name for this trial, new for each: attempts of another do not count
}

// Device is the partition: a block device or a file.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// Read returns the record in dev, or ErrNone.
func Read(dev Device) (Record, error) {
	for _, at := range []int64{First, Second} {
		block := make([]byte, Size)
		if _, err := dev.ReadAt(block, at); err != nil {
			return Record{}, fmt.Errorf("slots: %w", err)
		}
		values, err := parse(block)
		if err != nil {
			continue
		}
		r := Record{Good: values["good"], Trial: values["trial"], ID: values["trial_id"]}
		if r.check() == nil {
			return r, nil
		}
	}
	return Record{}, ErrNone
}

// Write stores r durably: after an error, or a power cut at any moment, Read
// gives the old record or the new one.
func Write(dev Device, r Record) error {
	if err := r.check(); err != nil {
		return err
	}
	block := format(map[string]string{"good": r.Good, "trial": r.Trial, "trial_id": r.ID})
	for _, at := range []int64{First, Second} {
		if _, err := dev.WriteAt(block, at); err != nil {
			return fmt.Errorf("slots: %w", err)
		}
		if err := dev.Sync(); err != nil {
			return fmt.Errorf("slots: %w", err)
		}
	}
	return nil
}

func (r Record) check() error {
	if r.Good != "a" && r.Good != "b" {
		return fmt.Errorf("slots: the good slot is %q, want a or b", r.Good)
	}
	if r.Trial != "" && r.Trial != Other(r.Good) {
		return fmt.Errorf("slots: the slot on trial is %q, want %s", r.Trial, Other(r.Good))
	}
	if (r.Trial == "") != (r.ID == "") {
		return errors.New("slots: a trial has a name, and nothing else has")
	}
	return nil
}

// Other is the slot that slot is not.
func Other(slot string) string {
	if slot == "a" {
		return "b"
	}
	return "a"
}

// format makes a U-Boot environment of Size bytes.
func format(values map[string]string) []byte {
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	sort.Strings(names)
	block := make([]byte, Size)
	data := block[4:4]
	for _, name := range names {
		data = append(data, name+"="+values[name]+"\x00"...)
	}
	binary.LittleEndian.PutUint32(block, crc32.ChecksumIEEE(block[4:]))
	return block
}

func parse(block []byte) (map[string]string, error) {
	if len(block) != Size || binary.LittleEndian.Uint32(block) != crc32.ChecksumIEEE(block[4:]) {
		return nil, errors.New("slots: the sum is wrong")
	}
	values := map[string]string{}
	for entry := range bytes.SplitSeq(block[4:], []byte{0}) {
		if len(entry) == 0 {
			break // two zero bytes end the list
		}
		name, value, ok := strings.Cut(string(entry), "=")
		if !ok {
			return nil, fmt.Errorf("slots: %q is no NAME=VALUE", entry)
		}
		values[name] = value
	}
	return values, nil
}
