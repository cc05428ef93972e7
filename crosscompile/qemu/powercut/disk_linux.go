package powercut

import (
	"bytes"
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
		err = eachChunk(f, FSSize, func(at int64, data []byte) error {
			_, err := disk.WriteAt(data, FSStart+at)
			return err
		})
		return errors.Join(err, f.Close())
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

// Image is what of a disk is not zero, kept in memory to be written often.
type Image []Chunk

// Chunk is a piece of a disk.
type Chunk struct {
	At   int64
	Data []byte
}

// ReadImage reads the disk at path.
func ReadImage(path string) (Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	var i Image
	err = eachChunk(f, DiskSize, func(at int64, data []byte) error {
		i = append(i, Chunk{at, bytes.Clone(data)})
		return nil
	})
	return i, errors.Join(err, f.Close())
}

// Write makes a disk at path, over the one that stands there, and hands it to
// more before it is closed.
func (i Image) Write(path string, more func(io.WriterAt) error) error {
	if err := sparse(path, DiskSize); err != nil {
		return err
	}
	return onDisk(path, func(disk *os.File) error {
		for _, c := range i {
			if _, err := disk.WriteAt(c.Data, c.At); err != nil {
				return err
			}
		}
		return more(disk)
	})
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

// eachChunk visits the blocks of the first n bytes that are not zero.
func eachChunk(from io.ReaderAt, n int64, visit func(at int64, data []byte) error) error {
	const block = 64 << 10
	buffer, zeros := make([]byte, block), string(make([]byte, block))
	for at := int64(0); at < n; at += block {
		part := buffer[:min(block, n-at)]
		if err := readAt(from, part, at); err != nil {
			return err
		}
		if string(part) == zeros[:len(part)] {
			continue
		}
		if err := visit(at, part); err != nil {
			return err
		}
	}
	return nil
}
