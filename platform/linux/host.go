//go:build linux

package linux

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"postern/platform"
)

// Where things are unless Options say otherwise (firmware-notes/storage.md).
const (
	DefaultStateDir      = "/var/lib/postern"
	DefaultRuntimeDir    = "/run/postern"
	DefaultTokensLiteral = "/var/opt/azcmagent/tokens" //nolint:gosec // a directory, no credential
	DefaultConfig        = "/etc/postern/postern.toml"
)

// Options are platform.Options; each platform package has the name, so that
// one call fits both.
type Options = platform.Options

// Host is Linux. Its methods are safe for concurrent use.
type Host struct {
	dirs     platform.Dirs
	log      *slog.Logger
	group    string // as configured; empty for none
	sticky   bool   // Options.AllowSticky
	facts    string // below which /proc, /sys and /etc are read; "/" but in tests
	bootID   string
	overflow uint32 // the uid of accounts outside our user namespace
	init     initSystem
	accounts accountFiles

	without missing

	lastClock atomic.Pointer[reading]

	mu        sync.Mutex
	gid       int64           // of group once it was found, else -1
	held      map[string]*dir // open directories by path; files in them go nowhere else
	inherited []*inheritedSocket
}

// missing are the kernel's features that are not there. They are set when a
// call says so, and by tests that run the older ways on a new kernel.
type missing struct {
	openat2, tmpfile, emptyPath, procFD, renameat2, sockDiag atomic.Bool
}

var _ platform.Host = (*Host)(nil)

// New returns the host with the directories of o. It opens nothing, makes
// nothing and needs no rights; sockets that the init system handed to this
// process become its own, so call it once. The paths but Config must be absolute.
func New(o Options) (*Host, error) { return newHost(o, os.Getenv) }

// newHost reads the environment through env.
func newHost(o Options, env func(string) string) (*Host, error) {
	h := &Host{log: o.Log, group: o.Group, sticky: o.AllowSticky, facts: "/", gid: -1, held: map[string]*dir{}}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	h.dirs = platform.Dirs{
		State:         orDefault(o.StateDir, DefaultStateDir),
		Runtime:       orDefault(o.RuntimeDir, DefaultRuntimeDir),
		Tokens:        o.TokensDir,
		TokensLiteral: orDefault(o.TokensLiteral, orDefault(o.TokensDir, DefaultTokensLiteral)),
		Config:        orDefault(o.Config, DefaultConfig),
	}
	if abs, err := filepath.Abs(h.dirs.Config); err == nil {
		h.dirs.Config = abs // as given by a person in some directory; the others come from a file
	}
	if h.dirs.Tokens == "" {
		h.dirs.Tokens = h.findTokens()
	}
	for _, p := range []*string{&h.dirs.State, &h.dirs.Runtime, &h.dirs.Tokens, &h.dirs.TokensLiteral, &h.dirs.Config} {
		clean, err := cleanPath(*p)
		if err != nil {
			return nil, err
		}
		*p = clean
	}
	h.bootID = readBootID(h.facts)
	h.overflow = readOverflowUID(h.facts)
	h.accounts.root = h.facts
	h.init = newInitSystem(env, o.ReadyFD)
	inherited, err := inheritSockets(env)
	if err != nil {
		return nil, err
	}
	h.inherited = inherited
	return h, nil
}

// findTokens resolves the literal path once: a link of root's, a mount or a
// plain directory of its own, or nothing yet. Where it leads is verified when
// it is opened.
func (h *Host) findTokens() string {
	literal := h.dirs.TokensLiteral
	if target, err := os.Readlink(literal); err == nil {
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(literal), target)
		}
		return target
	}
	var st unix.Stat_t
	if err := unix.Lstat(literal, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return literal
	}
	return filepath.Join(h.dirs.Runtime, "tokens")
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// Dirs returns the directories in use.
func (h *Host) Dirs() platform.Dirs { return h.dirs }

// Self is our own account, by its effective uid.
func (h *Host) Self() platform.Peer { return platform.UIDPeer(uid()) }

// Administrator reports whether p is root or our own account.
func (h *Host) Administrator(p platform.Peer) bool {
	id, ok := p.UID()
	return ok && (id == 0 || id == uid())
}

func uid() uint32 { return uint32(os.Geteuid()) } //nolint:gosec // a uid has 32 bits

// Peer says which account holds the other end of c (firmware-notes/attack-surface.md).
// Ask once, at accept: the answer needs the other end to be open.
func (h *Host) Peer(c net.Conn) platform.Peer {
	for {
		inner, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		c = inner.NetConn()
	}
	switch c := c.(type) {
	case *net.UnixConn:
		return h.unixPeer(c)
	case *net.TCPConn:
		return h.tcpPeer(c)
	}
	return platform.Unknown
}
