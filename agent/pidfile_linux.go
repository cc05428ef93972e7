package main

import (
	"io/fs"
	"syscall"
)

// openLiterally keeps an open from following a link or waiting for a reader.
const openLiterally = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// names is how many names a file has.
func names(info fs.FileInfo) uint64 {
	st, known := info.Sys().(*syscall.Stat_t)
	if !known {
		return 1
	}
	return uint64(st.Nlink) //nolint:unconvert // its type differs by architecture
}
