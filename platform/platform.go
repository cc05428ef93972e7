// Package platform holds the words in which the rest of Postern speaks of the
// operating system: access, directories, peers, clocks. It has no code that
// touches one; platform/linux and platform/windows do, under the same function
// names, and platform/platformtest holds the suite that both must pass.
package platform

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Access says who may use a file or directory. It is a meaning, not a mode:
// each platform turns it into modes and ACLs, or into a protected DACL.
// The numbers are fixed.
type Access uint8

const (
	// Private is the agent's account and administrators, nobody else.
	Private Access = 1
	// TokenReaders is as Private, plus one group that may read.
	TokenReaders Access = 2
	// Public is written as Private, readable by everyone.
	Public Access = 3
)

// String returns the name used in errors and check output.
func (a Access) String() string {
	switch a {
	case Private:
		return "private"
	case TokenReaders:
		return "token-readers"
	case Public:
		return "public"
	}
	return "access(" + strconv.Itoa(int(a)) + ")"
}

// Dirs are the absolute paths that the agent uses.
type Dirs struct {
	State   string // databases and the key-encryption key; Private
	Runtime string // control socket, env file; Public directory on tmpfs
	Tokens  string // where challenge files are made; TokenReaders, on tmpfs
	// TokensLiteral is the path that clients compare byte for byte and that
	// therefore stands in the challenge header: /var/opt/azcmagent/tokens on
	// Linux. It leads to Tokens, or equals it.
	TokensLiteral string
	Config        string // the configuration file
}

// Peer names the account behind a local connection: "uid:1001", "sid:S-1-5-…",
// "workload:NAME" for the holder of a workload's secret, or Unknown. Peers are
// comparable; equal strings are the same principal.
type Peer string

// Unknown is the peer that could not be identified. It is a principal of its
// own with the fewest rights: never root, never "anybody".
const Unknown Peer = ""

// UIDPeer returns the peer of a Unix user id.
func UIDPeer(uid uint32) Peer { return Peer("uid:" + strconv.FormatUint(uint64(uid), 10)) }

// UID returns the Unix user id of p; false if p is not a Unix user.
func (p Peer) UID() (uint32, bool) {
	s, ok := strings.CutPrefix(string(p), "uid:")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil
}

// String returns the form used in logs and audit; Unknown prints as "unknown".
func (p Peer) String() string {
	if p == Unknown {
		return "unknown"
	}
	return string(p)
}

// Clock is one reading of the device's clocks, taken together.
type Clock struct {
	Wall         time.Time     // UTC, without a monotonic part
	Boot         time.Duration // since boot, suspend included
	BootID       string        // changes at every boot
	Synchronised bool          // the kernel says that a time source steers the clock
}

// ErrAccess is wrapped by every refusal to use a path because of its owner,
// mode, ACL, type, link count, parents, or a symbolic link on the way.
var ErrAccess = errors.New("unsafe access")

// AccessError reports a path that others could reach, or that is not what it
// should be. It wraps ErrAccess.
type AccessError struct {
	Path    string
	Want    Access
	Problem string // what is wrong, with the numbers: "owner is uid 998, want 942"
	Readers string // who could read it, if anybody beyond Want; empty if nobody
	Fix     string // one command that puts it right; empty if there is none
}

func (e *AccessError) Error() string { return fmt.Sprintf("%s: %s", e.Path, e.Problem) }

// Unwrap makes errors.Is(err, ErrAccess) true.
func (e *AccessError) Unwrap() error { return ErrAccess }

// ErrPortTaken is wrapped by Listen when another program holds the address.
// The message names the owner's uid and pid where they are visible.
var ErrPortTaken = errors.New("address already in use")

// ErrNoAddress is wrapped by Listen when no device of this machine has the address.
var ErrNoAddress = errors.New("no device of this machine has the address")

// Listener says what to listen on.
type Listener struct {
	// Name is the name under which an init system may hand the socket over:
	// "arc", "imds", "control".
	Name string
	// Network is "tcp4", "tcp6" or "unix" (a named pipe on Windows).
	Network string
	Address string // "127.0.0.1:40342", "/run/postern/control.sock"
	// Loopback binds the socket to the loopback device, so that the network
	// cannot reach it whatever its address.
	Loopback bool
	// Everywhere lets Address be a wildcard, which is refused otherwise: for a
	// site authority whose operator said so. Nothing of the agent sets it.
	Everywhere bool
	// Early also takes an address that no device has yet, where the system can:
	// it is served as soon as one has it.
	Early bool
	// Access of a unix socket or pipe: Private (0600), or everyone (0666; zero
	// and Public), so that the program decides by peer.
	Access Access
}

// Dir is a directory that is held open, so that its path can be compared with
// it. All methods are safe for concurrent use.
type Dir interface {
	// Path is the path that was opened.
	Path() string
	// Create makes the file name with the content, complete and with the
	// directory's access before it becomes visible. fs.ErrExist if the name is taken.
	Create(name string, content []byte) error
	// Remove unlinks a regular file that our account owns. fs.ErrNotExist if it is gone.
	Remove(name string) error
	// Names lists all entries; ours says which of them our account owns and
	// are regular files with one link.
	Names() (names []Entry, err error)
	// Check compares the held directory with its path (device and inode) and
	// verifies access. A failure is an *AccessError.
	Check() error
	// Close releases the directory.
	Close() error
}

// Entry is one name in a Dir.
type Entry struct {
	Name  string
	Ours  bool // regular file, one link, owned by our account
	Birth time.Time
}

// Host is the operating system. Implementations: linux.Host, windows.Host.
// All methods are safe for concurrent use.
type Host interface {
	// Dirs returns the directories in use.
	Dirs() Dirs

	// Secure makes the directory path with access a if it is missing (its
	// parent must exist and be safe) and verifies it otherwise. It never
	// changes the access of something that exists. Errors: *AccessError.
	Secure(path string, a Access) error
	// Check verifies owner, access, type, link count and every parent of an
	// existing file or directory. Errors: *AccessError, fs.ErrNotExist.
	Check(path string, a Access) error
	// WriteFile replaces path atomically and durably: temporary file born with
	// access a, content, fsync, rename, fsync of the directory.
	WriteFile(path string, content []byte, a Access) error
	// OpenFile opens without following a link in any component, after the same
	// verification as Check; a new file is born with access a. It fits bbolt's
	// Options.OpenFile once access is bound.
	OpenFile(path string, flag int, a Access) (*os.File, error)
	// OpenDir opens and holds a directory. TokenReaders directories give their
	// files the readers' group.
	OpenDir(path string, a Access) (Dir, error)
	// FileSystem names the file system type below path and says whether it is
	// volatile (tmpfs, overlay) or remote (NFS, CIFS, 9p, FUSE).
	FileSystem(path string) (FileSystem, error)

	// Peer says which account holds the other end of c; Unknown when in doubt.
	Peer(c net.Conn) Peer
	// Self is our own account.
	Self() Peer
	// Account resolves a user name; Unknown if there is none. It reads the
	// system's own files only.
	Account(user string) Peer
	// UserName is the reverse; empty if unknown.
	UserName(p Peer) string
	// Member reports whether p belongs to the named group (primary or listed).
	Member(p Peer, group string) bool
	// Administrator reports whether p may administer the agent: uid 0 or our
	// own account; SYSTEM, Administrators.
	Administrator(p Peer) bool

	// Clock reads the clocks.
	Clock() Clock
	// Fingerprint returns facts of the board, each "name=digest", sorted;
	// nothing secret and no raw serial.
	Fingerprint() []string
	// Kernel is the version of the system's kernel, "6.18.5"; empty if unknown.
	Kernel() string

	// Listen returns the socket that was handed over under the listener's name
	// and address, or opens it. Errors wrap ErrPortTaken when it is held by
	// another program.
	Listen(ctx context.Context, l Listener) (net.Listener, error)
	// Notify tells the init system; unknown or absent ones make it a no-op.
	// state is in the words of sd_notify: "READY=1", "STATUS=…", "STOPPING=1", "WATCHDOG=1".
	Notify(state string)
	// Watchdog is the time within which the init system wants to hear
	// "WATCHDOG=1" again, so send it twice as often; 0 for never.
	Watchdog() time.Duration
	// Prepare makes the state, runtime and token directories that are missing
	// and gives them to account, "user", "user:group" or numbers; what exists
	// keeps its owner. For root, before Drop (firmware-notes/storage.md).
	Prepare(account string) error
	// Drop turns this process into account, on all threads and for good, and
	// reads the result back; after an error the process must exit. A process
	// that is the account already is only checked.
	Drop(account string) error
	// Harden makes the process undumpable, without core files and without new
	// privileges, and returns what could be reached, "core dump ptrace privileges".
	// It comes first, before anything secret is read (firmware-notes/attack-surface.md,
	// steps 1 to 3). An error names what could not be had; the process may go on.
	Harden() (level string, err error)
	// Confine limits what the process may open from now on, and returns the
	// word for `status`: "landlock 7", "provided by systemd", "none". It comes
	// last, when listeners and stores are open (step 5), and cannot be undone.
	// An error explains a level of none; the process may go on.
	Confine(c Confinement) (level string, err error)

	// LockHolder names the process that holds a lock on the file, "pid 712
	// (postern)"; empty if there is none or it cannot be seen.
	LockHolder(path string) string
	// PortOwner names who listens on a TCP address, "uid 1001 (eve), pid 712
	// (python3)"; empty if nobody does or it cannot be seen.
	PortOwner(address string) string
}

// FileSystem describes what lies below a path.
type FileSystem struct {
	Type     string // "ext4", "tmpfs", "nfs"
	Volatile bool   // lost at reboot
	Remote   bool   // network, FUSE, 9p: refused for state
	ReadOnly bool
	Free     int64 // bytes an unprivileged process may still use
}
