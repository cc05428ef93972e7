package main

import (
	"io/fs"
	"syscall"
)

const (
	// openAtOnce keeps an open from waiting for the other end of a pipe.
	openAtOnce = syscall.O_NONBLOCK
	// openLiterally keeps it from following a link, too.
	openLiterally = syscall.O_NOFOLLOW | openAtOnce
)

// names is how many names a file has.
func names(info fs.FileInfo) uint64 {
	st, known := info.Sys().(*syscall.Stat_t)
	if !known {
		return 1
	}
	return uint64(st.Nlink) //nolint:unconvert // its type differs by architecture
}
