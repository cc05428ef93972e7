package store

import (
	"context"
	"log/slog"
	"os"
	"time"
)

// Options say how files are opened. The zero value works: it opens plainly,
// without following links, and checks files in the same process; the agent
// gives the platform's functions instead.
type Options struct {
	// OpenFile opens or makes a private file; it decides on type, owner, access
	// and links. It fits the platform's OpenFile with Private bound. nil: 0600,
	// no link followed, regular files only.
	OpenFile func(path string, flag int) (*os.File, error)
	// WriteFile replaces a private file atomically and durably. nil: temporary
	// file, fsync, rename, fsync of the directory.
	WriteFile func(path string, content []byte) error
	// Verify checks a database file before it is mapped. An error that wraps
	// ErrDamaged, ErrLocked or ErrNewer is a verdict; any other says that
	// the check could not be made, and so does every error after the
	// context's end. The agent gives Child. nil: VerifyFile, in
	// this process.
	Verify func(ctx context.Context, path string) error
	// FileSystem describes what lies below a path. nil: not asked.
	FileSystem func(path string) (FileSystem, error)
	// Holder names the process that holds a lock on path, "pid 712 (postern)";
	// empty if it cannot be seen. nil: not named.
	Holder func(path string) string
	// AllowRemote accepts network file systems.
	AllowRemote bool
	// External is a second part of the key-encryption key that comes from
	// outside the state directory (TPM, systemd credential, DPAPI). It is mixed
	// into the key file's, so that destroying the key file still forgets.
	// Empty: the key file alone.
	External Secret
	// Protection names where External comes from: "tpm", "credential", "dpapi".
	// Ignored without External; then the protection is "file".
	Protection string
	// MaxSize is the limit of a database file in bytes; 0 means 1 GiB, for the
	// cache 16 MiB.
	MaxSize int64
	// AuditRecords is how many records the audit ring of the cache holds; 0
	// means 2000.
	AuditRecords int
	// Now is the wall clock, used for names of files set aside and for the
	// day of the written-bytes counter. nil: time.Now.
	Now func() time.Time
	// Log gets what was recovered, set aside or refused. nil discards.
	Log *slog.Logger

	// testOnlyNoSync makes commits without fdatasync: the fault that the
	// power-cut tests must find.
	testOnlyNoSync bool
	// testOnlySchema stands for another release's schema.
	testOnlySchema schema
}

// FileSystem describes what lies below a path. It has the shape of the
// platform's type of the same name.
type FileSystem struct {
	Type     string // "ext4", "nfs"
	Volatile bool   // lost at reboot
	Remote   bool   // network, FUSE, 9p
	ReadOnly bool
	Free     int64 // bytes we may still use
}

// Limits of one database file.
const (
	pageSize      = 4096     // always, whatever the kernel's: 16 KB pages cost three times the flash
	cacheMaxSize  = 16 << 20 // then dropped and rebuilt
	otherMaxSize  = 1 << 30
	lockTimeout   = time.Second
	verifyTimeout = 10 * time.Second
)

// filled returns o without gaps, so that the code below never asks for nil.
func (o Options) filled() Options {
	if o.OpenFile == nil {
		o.OpenFile = openPlain
	}
	if o.WriteFile == nil {
		o.WriteFile = writePlain
	}
	if o.Verify == nil {
		limit := o
		o.Verify = func(ctx context.Context, path string) error { return VerifyFile(ctx, path, limit) }
	}
	if o.Holder == nil {
		o.Holder = func(string) string { return "" }
	}
	if o.MaxSize <= 0 {
		o.MaxSize = otherMaxSize
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.testOnlySchema == (schema{}) {
		o.testOnlySchema = currentSchema()
	}
	return o
}
