package powercut

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Flags of an entry (Linux, Documentation/admin-guide/device-mapper/log-writes.rst).
const (
	Flush   = 1 << 0 // all writes before this one are on the medium
	FUA     = 1 << 1 // this write itself is on the medium
	Discard = 1 << 2 // no data follow
	Comment = 1 << 3 // a mark of the log's own, no block is written
)

// Entry is one request to the disk. Its data, Length bytes, are to be put at
// byte At of the disk; they stand in the log at byte Data.
type Entry struct {
	At, Length, Data int64
	Flags            uint64
}

// IsWrite reports whether the entry changes blocks.
func (e Entry) IsWrite() bool { return e.Length > 0 && e.Flags&(Discard|Comment) == 0 }

// Log is a recording. Its entries are in the order in which the device
// finished them.
type Log struct {
	Entries []Entry
	data    io.ReaderAt
}

// ErrLog says that the file is no such recording, or cut short.
var ErrLog = errors.New("not a log of block writes")

const (
	logMagic   = 0x6a736677736872
	logVersion = 1
	logMost    = 1 << 20 // entries; ours have some thousands
	diskMost   = 1 << 40 // bytes of a disk
)

// ReadLog reads the recording in r, which has size bytes, and keeps r for the
// data. Numbers in the file are not believed: all have to fit. Errors wrap
// ErrLog, or are r's.
func ReadLog(r io.ReaderAt, size int64) (*Log, error) {
	var super [28]byte
	if err := readAt(r, super[:], 0); err != nil {
		return nil, fmt.Errorf("superblock: %w", err)
	}
	word := func(b []byte, i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
	count, sector := word(super[:], 2), int64(binary.LittleEndian.Uint32(super[24:]))
	switch {
	case word(super[:], 0) != logMagic:
		return nil, fmt.Errorf("magic: %w", ErrLog)
	case word(super[:], 1) != logVersion:
		return nil, fmt.Errorf("version %d: %w", word(super[:], 1), ErrLog)
	case sector < 512 || sector > 1<<20 || sector&(sector-1) != 0:
		return nil, fmt.Errorf("sectors of %d bytes: %w", sector, ErrLog)
	case count > logMost:
		return nil, fmt.Errorf("%d entries: %w", count, ErrLog)
	}
	l := &Log{data: r}
	at := sector
	for n := range count {
		var head [32]byte
		if err := readAt(r, head[:], at); err != nil {
			return nil, fmt.Errorf("entry %d of %d: %w", n, count, err)
		}
		first, sectors, flags := word(head[:], 0), word(head[:], 1), word(head[:], 2)
		if first > diskMost/uint64(sector) || sectors > diskMost/uint64(sector) {
			return nil, fmt.Errorf("entry %d of %d: %d sectors at %d: %w", n, count, sectors, first, ErrLog)
		}
		e := Entry{At: int64(first) * sector, Length: int64(sectors) * sector, Data: at + sector, Flags: flags}
		at = e.Data
		if flags&Discard == 0 {
			at += e.Length
		}
		if at > size {
			return nil, fmt.Errorf("entry %d of %d ends behind the file: %w", n, count, ErrLog)
		}
		l.Entries = append(l.Entries, e)
	}
	return l, nil
}

// Read returns the data of entry e.
func (l *Log) Read(e Entry) ([]byte, error) {
	content := make([]byte, e.Length)
	return content, readAt(l.data, content, e.Data)
}

func readAt(r io.ReaderAt, p []byte, at int64) error {
	n, err := r.ReadAt(p, at)
	if n == len(p) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("cut short: %w", ErrLog)
	}
	return err
}
