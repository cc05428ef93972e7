//go:build linux

package main

import (
	"errors"
	"os"
	"syscall"

	"postern/crosscompile/qemu/powercut"
)

// board is the partition of the marks. It is written past the page cache, and
// in a recording deliberately without a flush: a flush would carry to the
// medium what the store forgot to sync. The mark is in the device's hands, and
// in the log, when the call returns.
type board struct {
	file *os.File
	slot []byte // aligned as O_DIRECT wants it
}

// openBoard returns the board and its newest mark; nil if there is none yet.
func openBoard(partition string, flush bool) (*board, *powercut.Mark, error) {
	f, err := os.OpenFile(partition, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	m, err := powercut.LastMark(f, 0)
	last := &m
	if errors.Is(err, powercut.ErrNoMark) {
		last, err = nil, nil
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, nil, err
	}
	flag := os.O_WRONLY | syscall.O_DIRECT
	if flush {
		flag |= syscall.O_DSYNC
	}
	f, err = os.OpenFile(partition, flag, 0)
	if err != nil {
		return nil, nil, err
	}
	page, err := syscall.Mmap(-1, 0, os.Getpagesize(), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return &board{f, page[:powercut.MarkSlot]}, last, nil
}

func (b *board) write(m powercut.Mark) error {
	content, err := m.Encode()
	if err != nil {
		return err
	}
	copy(b.slot, content)
	_, err = b.file.WriteAt(b.slot, m.Offset())
	return err
}
