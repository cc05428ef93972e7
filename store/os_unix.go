//go:build unix

package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// openNoFollow: a link is refused, a FIFO or device cannot block.
const openNoFollow = syscall.O_NOFOLLOW | syscall.O_NONBLOCK | syscall.O_CLOEXEC

// renamesOpenFiles: a file can be renamed, and replaced, while it is open.
const renamesOpenFiles = true

// unwritable reports whether err says that nothing can be written here at
// present (no space, read-only, an I/O error, no descriptors), as opposed to a
// file whose content is wrong.
func unwritable(err error) bool {
	for _, e := range []error{
		syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO, syscall.EMFILE, syscall.ENFILE,
		syscall.ENOMEM, syscall.EACCES, syscall.EPERM, syscall.EFBIG,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// fixUnwritable is the next step when nothing can be written in dir, empty if
// that is not what err says.
func fixUnwritable(err error, dir string) string {
	for _, f := range []struct {
		is  error
		fix string
	}{
		{syscall.ENOSPC, "df -h %s   # and make room"},
		{syscall.EDQUOT, "df -h %s   # and make room, or raise the quota"},
		{syscall.EROFS, "findmnt -T %s   # and mount it so that it can be written"},
		{syscall.EIO, "sudo dmesg | tail   # says what is wrong with the disk below %s"},
		{syscall.EACCES, "ls -la %s"},
		{syscall.EPERM, "ls -la %s"},
	} {
		if errors.Is(err, f.is) {
			return fmt.Sprintf(f.fix, dir)
		}
	}
	return ""
}

// endedFromOutside reports whether a process was ended by a signal that no
// fault of its own raises.
func endedFromOutside(p *os.ProcessState) bool {
	status, ok := p.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return false
	}
	switch status.Signal() {
	case syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGKILL:
		return true
	}
	return false
}

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// inode names the file for messages.
func inode(info fs.FileInfo) string {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprintf("inode %d on device %d", s.Ino, s.Dev)
	}
	return "unknown inode"
}

// tryLock takes the exclusive advisory lock; false if another process has it.
func tryLock(f *os.File) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}
