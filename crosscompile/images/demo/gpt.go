//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf16"
)

const sector = 512

// partitionOffset is where a named partition of an image begins, in bytes
// (UEFI specification 2.10, section 5.3: GPT).
func partitionOffset(image, name string) (int64, error) {
	f, err := os.Open(image)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	header := make([]byte, sector)
	if _, err := f.ReadAt(header, sector); err != nil {
		return 0, fmt.Errorf("%s: %w", image, err)
	}
	if !bytes.HasPrefix(header, []byte("EFI PART")) {
		return 0, fmt.Errorf("%s has no partition table: build it with go run ./crosscompile/images/demo build", image)
	}
	at := int64(binary.LittleEndian.Uint64(header[72:])) * sector
	count, size := binary.LittleEndian.Uint32(header[80:]), binary.LittleEndian.Uint32(header[84:])
	if size < 128 || size > 4096 || count > 256 {
		return 0, fmt.Errorf("%s: the partition table is damaged", image)
	}
	entry := make([]byte, size)
	for i := range int64(count) {
		if _, err := f.ReadAt(entry, at+i*int64(size)); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if entryName(entry) == name {
			return int64(binary.LittleEndian.Uint64(entry[32:])) * sector, nil
		}
	}
	return 0, fmt.Errorf("%s has no partition %q", image, name)
}

func entryName(entry []byte) string {
	var units []uint16
	for i := 56; i+1 < 128; i += 2 {
		u := binary.LittleEndian.Uint16(entry[i:])
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}
