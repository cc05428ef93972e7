//go:build !unix

package store

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

const openNoFollow = 0 // the platform's OpenFile refuses reparse points

const renamesOpenFiles = false

// Codes of winerror.h.
const (
	errorHandleDiskFull   = syscall.Errno(39)
	errorWriteProtect     = syscall.Errno(19)
	errorDiskFull         = syscall.Errno(112)
	errorSharingViolation = syscall.Errno(32)
	errorTooManyOpenFiles = syscall.Errno(4)
	errorIODevice         = syscall.Errno(1117)
	errorNoResources      = syscall.Errno(1450)
)

func unwritable(err error) bool {
	for _, e := range []error{
		errorHandleDiskFull, errorWriteProtect, errorDiskFull, errorTooManyOpenFiles, errorIODevice,
		errorNoResources, fs.ErrPermission,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func fixUnwritable(error, string) string { return "" }

func endedFromOutside(*os.ProcessState) bool { return false } // it cannot be told

// syncDir: names are journalled by the file system; a directory has no flush.
func syncDir(string) error { return nil }

func inode(info fs.FileInfo) string { return info.Name() }

// tryLock: the file was opened without sharing by the second process's open,
// or bbolt's own lock decides.
func tryLock(*os.File) (bool, error) { return true, nil }
