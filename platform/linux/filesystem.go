//go:build linux

package linux

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"

	"golang.org/x/sys/unix"

	"postern/platform"
)

// fileSystem is what we know of one type by its number (statfs(2)).
type fileSystem struct {
	name             string
	volatile, remote bool
}

func fileSystemOf(magic int64) (fileSystem, bool) {
	fsys, ok := map[int64]fileSystem{
		unix.EXT4_SUPER_MAGIC:      {name: "ext4"}, // and ext2, ext3
		unix.F2FS_SUPER_MAGIC:      {name: "f2fs"},
		unix.XFS_SUPER_MAGIC:       {name: "xfs"},
		unix.BTRFS_SUPER_MAGIC:     {name: "btrfs"},
		unix.BCACHEFS_SUPER_MAGIC:  {name: "bcachefs"},
		unix.JFFS2_SUPER_MAGIC:     {name: "jffs2"},
		0x24051905:                 {name: "ubifs"},
		0x2fc12fc1:                 {name: "zfs"},
		unix.MSDOS_SUPER_MAGIC:     {name: "vfat"},
		unix.EXFAT_SUPER_MAGIC:     {name: "exfat"},
		unix.SQUASHFS_MAGIC:        {name: "squashfs"},
		0xe0f5e1e2:                 {name: "erofs"},
		unix.ISOFS_SUPER_MAGIC:     {name: "iso9660"},
		unix.TMPFS_MAGIC:           {name: "tmpfs", volatile: true},
		unix.RAMFS_MAGIC:           {name: "ramfs", volatile: true},
		unix.OVERLAYFS_SUPER_MAGIC: {name: "overlay", volatile: true},
		unix.NFS_SUPER_MAGIC:       {name: "nfs", remote: true},
		unix.CIFS_SUPER_MAGIC:      {name: "cifs", remote: true},
		unix.SMB_SUPER_MAGIC:       {name: "smb", remote: true},
		unix.SMB2_SUPER_MAGIC:      {name: "smb", remote: true},
		unix.V9FS_MAGIC:            {name: "9p", remote: true},
		unix.FUSE_SUPER_MAGIC:      {name: "fuse", remote: true},
		unix.CEPH_SUPER_MAGIC:      {name: "ceph", remote: true},
		unix.AFS_SUPER_MAGIC:       {name: "afs", remote: true},
		unix.AFS_FS_MAGIC:          {name: "afs", remote: true},
		unix.CODA_SUPER_MAGIC:      {name: "coda", remote: true},
		unix.NCP_SUPER_MAGIC:       {name: "ncp", remote: true},
		unix.OCFS2_SUPER_MAGIC:     {name: "ocfs2", remote: true},
		0x01161970:                 {name: "gfs2", remote: true},
		0x0bd00bd0:                 {name: "lustre", remote: true},
	}[magic]
	return fsys, ok
}

// FileSystem describes what lies below path, or below the nearest parent that
// exists. An unknown type is named by its number and taken for local.
func (h *Host) FileSystem(path string) (platform.FileSystem, error) {
	path, err := cleanPath(path)
	if err != nil {
		return platform.FileSystem{}, err
	}
	for {
		var st unix.Statfs_t
		err := unix.Statfs(path, &st)
		if err == nil {
			return describe(&st), nil
		}
		if !errors.Is(err, fs.ErrNotExist) || path == "/" {
			return platform.FileSystem{}, &fs.PathError{Op: "statfs", Path: path, Err: err}
		}
		path = filepath.Dir(path)
	}
}

func describe(st *unix.Statfs_t) platform.FileSystem {
	magic := int64(uint32(st.Type)) //nolint:gosec // 32 bits in the kernel, sign-extended on some machines
	known, ok := fileSystemOf(magic)
	if !ok {
		known.name = fmt.Sprintf("type %#x", magic)
	}
	return platform.FileSystem{
		Type:     known.name,
		Volatile: known.volatile,
		Remote:   known.remote,
		ReadOnly: int64(st.Flags)&unix.ST_RDONLY != 0, //nolint:unconvert // it has 32 bits on some machines
		Free:     free(st.Bavail, uint64(st.Bsize)),   //nolint:gosec // a block has a size above 0
	}
}

// free multiplies without running over: a huge remote volume is just huge.
func free(blocks, size uint64) int64 {
	if size != 0 && blocks > math.MaxInt64/size {
		return math.MaxInt64
	}
	return int64(blocks * size) //nolint:gosec // at most MaxInt64, see above
}
