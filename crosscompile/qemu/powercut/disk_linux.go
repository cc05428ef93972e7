package powercut

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// MakeDisk makes a disk at path: a partition with a new file system and one
// for marks. ext4 gets the block size that a card of common size has; nothing
// is left to be initialised in the background, which would fill the log.
func MakeDisk(ctx context.Context, path, system string) error {
	work, err := os.MkdirTemp(filepath.Dir(path), "mkfs-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	part := filepath.Join(work, "part")
	if err := sparse(part, FSSize); err != nil {
		return err
	}
	args := map[string][]string{
		"ext4": {"mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0", part},
		"f2fs": {"mkfs.f2fs", "-q", "-f", part},
	}[system]
	if args == nil {
		return fmt.Errorf("no file system %q", system)
	}
	if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", args[0], err, out)
	}
	if err := sparse(path, DiskSize); err != nil {
		return err
	}
	return onDisk(path, func(disk *os.File) error {
		if _, err := disk.WriteAt(bootSector(), 0); err != nil {
			return err
		}
		f, err := os.Open(part)
		if err != nil {
			return err
		}
		return errors.Join(copySparse(disk, FSStart, f, FSSize), f.Close())
	})
}

// bootSector is a partition table of the old kind, which every kernel reads.
func bootSector() []byte {
	sector := make([]byte, 512)
	for i, p := range [][2]uint32{{FSStart, FSSize}, {MarkStart, MarkSlot * MarkSlots}} {
		entry := sector[446+16*i:]
		entry[4] = 0x83
		binary.LittleEndian.PutUint32(entry[8:], p[0]/512)
		binary.LittleEndian.PutUint32(entry[12:], p[1]/512)
	}
	sector[510], sector[511] = 0x55, 0xaa
	return sector
}

// CopyDisk copies a disk; what is zero takes no room.
func CopyDisk(to, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	if err := sparse(to, DiskSize); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(onDisk(to, func(disk *os.File) error { return copySparse(disk, 0, f, DiskSize) }), f.Close())
}

func sparse(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

func onDisk(path string, do func(*os.File) error) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(do(f), f.Close())
}

// copySparse copies n bytes of from to byte at of to, and leaves holes where
// there are only zeros.
func copySparse(to io.WriterAt, at int64, from io.ReaderAt, n int64) error {
	const block = 64 << 10
	buffer, zeros := make([]byte, block), string(make([]byte, block))
	for done := int64(0); done < n; done += block {
		part := buffer[:min(block, n-done)]
		if err := readAt(from, part, done); err != nil {
			return err
		}
		if string(part) == zeros[:len(part)] {
			continue
		}
		if _, err := to.WriteAt(part, at+done); err != nil {
			return err
		}
	}
	return nil
}
