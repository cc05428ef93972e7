package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// openPlain is the OpenFile of tests and of programs without a platform: it
// follows no link, cannot hang on a FIFO or a device, and hands over nothing
// but a regular file.
func openPlain(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|openNoFollow, 0o600)
	if err != nil {
		if refused := notRegular(path); refused != nil {
			return nil, refused
		}
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = notRegular(path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// notRegular says why the thing at path is refused; nil if it is a regular
// file or nothing at all.
func notRegular(path string) error {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().IsRegular() {
		return nil //nolint:nilerr // nothing there: the caller's own error says so
	}
	return fmt.Errorf("%s is a %s: %w", path, typeName(info.Mode()), ErrUnsafe)
}

func typeName(m fs.FileMode) string {
	switch {
	case m&fs.ModeSymlink != 0:
		return "symbolic link"
	case m.IsDir():
		return "directory"
	case m&fs.ModeNamedPipe != 0:
		return "FIFO"
	case m&fs.ModeSocket != 0:
		return "socket"
	case m&fs.ModeDevice != 0:
		return "device"
	}
	return "special file"
}

// writePlain replaces path atomically and durably.
func writePlain(path string, content []byte) error {
	temp := path + ".tmp"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := openPlain(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncDir(filepath.Dir(path))
}

// readWhole reads a small private file; a longer one than limit is an error, so
// that a file that was swapped for a huge one costs nothing. It runs at every
// tick, so the buffer is the file's size; and there is one of it, since it may
// hold a key.
func readWhole(o Options, path string, limit int64) ([]byte, error) {
	f, err := o.OpenFile(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	content, err := readUpTo(f, limit)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return content, nil
}

func readUpTo(f *os.File, limit int64) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("more than %d bytes: %w", limit, ErrDamaged)
	}
	content := make([]byte, info.Size())
	n, err := io.ReadFull(f, content)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil // cut short meanwhile; what is left has to make sense
	}
	return content[:n], err
}
