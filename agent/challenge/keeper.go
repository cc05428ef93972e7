// Package challenge proves that a local caller may read the token directory: it
// makes a file with a random secret there, names it, and recognises the secret
// when it comes back.
//
// The agent's side keeps digests only. A secret belongs to the peer for which
// it was made and to nothing else: not to a connection, a query or a process
// (firmware-notes/wire.md). Watching the directory is a hint; a rescan every 30 s
// and a comparison before each mint are the guarantee, and a directory that is
// not what it should be gets no challenge until it is right again.
//
// The package speaks no HTTP and knows no token. agent/endpoint calls Mint and
// Redeem; agent/wire.go runs Run for the life of the agent.
package challenge

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"postern/platform"
)

// Limits of challenges (firmware-notes/limits.md).
const (
	// Life is how long a challenge can be redeemed, in time that runs on in
	// suspend: what was slept is added at the first rescan afterwards.
	Life = 120 * time.Second
	// MaxOutstanding bounds the challenges of all peers together.
	MaxOutstanding = 256
	// MaxPerPeer bounds the challenges of one peer; all unknown peers are one.
	MaxPerPeer = 16

	secretBytes = 32 // 43 characters of base64url
	secretLen   = 43
	suffix      = ".key"
)

// What callers branch on. A directory that cannot be used is a *DirError.
var (
	// ErrTooMany says that this peer has MaxPerPeer challenges, none of them
	// presented yet. Answer 429.
	ErrTooMany = errors.New("too many challenges for one caller")
	// ErrBusy says that MaxOutstanding challenges are open. Answer 503.
	ErrBusy = errors.New("too many challenges")
	// ErrInvalid says that a secret is wrong, expired, used or somebody
	// else's: one case, on purpose. Answer with a fresh challenge.
	ErrInvalid = errors.New("challenge is not valid")
)

// Host is the part of platform.Host that a Keeper needs.
type Host interface {
	Dirs() platform.Dirs
	Secure(path string, a platform.Access) error
	OpenDir(path string, a platform.Access) (platform.Dir, error)
	Clock() platform.Clock
}

// Options configure a Keeper.
type Options struct {
	Host Host
	// Boot is the time since boot, suspend included; nil: Host.Clock().Boot. It
	// is read at each rescan, not for each challenge.
	Boot func() time.Duration
	// Poll leaves the watcher out: the directory is compared every 30 s and
	// before each challenge only.
	Poll bool
	// Log may be nil.
	Log *slog.Logger
	// Event is told of drift and of a replaced directory, for the audit. It is
	// called outside locks; nil is a no-op.
	Event func(Event)
}

// Event is something that the audit keeps.
type Event struct {
	Name   string // "access-drift", "token-dir-replaced"
	Path   string
	Reason string
}

// Keeper makes and recognises challenges. All methods are safe for concurrent use.
type Keeper struct {
	host    Host
	age     age
	log     *slog.Logger
	event   func(Event)
	path    string
	literal string // with its final separator
	eyes    func() (watcher, error)
	hint    chan struct{} // asks Run for a rescan; capacity 1

	scanning sync.Mutex // one rescan at a time

	mu       sync.Mutex
	keys     ring
	dir      *held     // nil while there is none
	problem  *DirError // nil while the directory is right
	stopped  bool
	notice   notice
	counters Counters
}

// New returns a Keeper over the host's token directory and removes what a crash
// left behind. A directory that is missing or wrong is no error here: Mint says
// so, and Run keeps trying. The error is for a literal path that no client
// could take.
func New(o Options) (*Keeper, error) {
	dirs := o.Host.Dirs()
	if err := checkLiteral(dirs.TokensLiteral); err != nil {
		return nil, err
	}
	k := &Keeper{
		host: o.Host, log: o.Log, event: o.Event,
		path:    dirs.Tokens,
		literal: strings.TrimRight(dirs.TokensLiteral, string(filepath.Separator)) + string(filepath.Separator),
		eyes:    watch,
		hint:    make(chan struct{}, 1),
		keys:    newRing(),
	}
	if o.Poll {
		k.eyes = nil
	}
	if o.Boot == nil {
		o.Boot = func() time.Duration { return o.Host.Clock().Boot }
	}
	k.age = newAge(o.Boot)
	if k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	if k.event == nil {
		k.event = func(Event) {}
	}
	k.scan()
	return k, nil
}

// checkLiteral refuses a path that would break the header: clients split it at
// '=' and compare the rest byte for byte (firmware-notes/wire.md, R1).
func checkLiteral(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("token directory %q: not an absolute path", path)
	}
	for _, r := range path {
		if r < 0x20 || r > 0x7e || r == '=' || r == '"' || r == ',' {
			return fmt.Errorf("token directory %q: character %q cannot stand in a challenge header", path, r)
		}
	}
	return nil
}

// Mint makes a challenge for peer and returns the literal path of its file,
// complete and readable, such as
// /var/opt/azcmagent/tokens/0f8fad5b-d9cb-469f-a165-70867728950e.key.
// The file holds 43 characters of base64url and no newline. Errors: ErrTooMany,
// ErrBusy, *DirError; none of them leaves a file behind.
func (k *Keeper) Mint(peer platform.Peer) (string, error) {
	name := newName()
	e, err := k.reserve(peer, name)
	if err != nil {
		return "", err
	}
	if err := k.write(e); err != nil {
		k.drop(e)
		return "", err
	}
	return k.literal + name, nil
}

// reserve takes a place under the caps and removes the files that gave way.
func (k *Keeper) reserve(peer platform.Peer, name string) (*entry, error) {
	now := k.age.now()
	k.mu.Lock()
	if err := k.refusal(); err != nil {
		k.mu.Unlock()
		k.Rescan()
		return nil, err
	}
	fresh, gone, err := k.keys.reserve(now, peer, name, k.dir)
	k.countGone(gone)
	if err != nil {
		k.counters.Refused++
	}
	k.mu.Unlock()
	k.unlink(gone)
	return fresh, err
}

// refusal is why no challenge may be made now; k.mu is held.
func (k *Keeper) refusal() error {
	switch {
	case k.stopped:
		return &DirError{Path: k.path, Problem: "the agent is stopping", Fix: "postern wait --for ready"}
	case k.problem != nil:
		return k.problem
	case k.dir == nil:
		return &DirError{Path: k.path, Problem: "not open yet", Fix: checkCommand}
	}
	return nil
}

// write makes the file of a reserved key. Create compares the held directory
// with its path first, so that one that was renamed or covered since the last
// rescan gets no challenge (T13; TestOS4ReplacedDirectoryThatFitsIsAdopted).
// Its access is left to the watcher and the rescan: verifying every parent takes
// longer than all the rest (33 of 98 µs, measured on Linux).
func (k *Keeper) write(e *entry) error {
	if !k.hold(e.dir) {
		return &DirError{Path: k.path, Problem: "was replaced just now", Fix: checkCommand}
	}
	defer k.release(e.dir)
	secret := make([]byte, secretLen)
	var raw [secretBytes]byte
	_, _ = rand.Read(raw[:]) // never fails: crypto/rand ends the process instead
	base64.RawURLEncoding.Encode(secret, raw[:])
	digest := sha256.Sum256(secret)
	err := e.dir.dir.Create(e.name, secret)
	clear(secret)
	clear(raw[:])
	if errors.Is(err, platform.ErrAccess) || errors.Is(err, fs.ErrNotExist) {
		k.Rescan()
		return k.drift(err)
	}
	if err != nil {
		return dirError(k.path, err)
	}
	if !k.activate(e, digest) {
		k.removeFile(e)
		return &DirError{Path: k.path, Problem: "was replaced just now", Fix: checkCommand}
	}
	return nil
}

// activate makes key redeemable, unless its directory was given up meanwhile.
func (k *Keeper) activate(e *entry, digest [sha256.Size]byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys.byName[e.name] != e {
		return false
	}
	e.digest, e.live = digest, true
	k.counters.Minted++
	return true
}

// Redeem recognises the secret of a challenge that was made for peer. It does
// not use the challenge up: that is Ticket.Consume, at the 200. Error:
// ErrInvalid, as an *InvalidError that says for the log what was wrong.
func (k *Keeper) Redeem(peer platform.Peer, secret string) (*Ticket, error) {
	if len(secret) != secretLen {
		return nil, &InvalidError{Reason: "malformed", Presented: peer}
	}
	digest := sha256.Sum256([]byte(secret))
	now := k.age.now()
	k.mu.Lock()
	defer k.mu.Unlock()
	if e := k.keys.find(peer, digest, now); e != nil {
		e.presented = true
		return &Ticket{keeper: k, entry: e}, nil
	}
	k.counters.Refused++
	return nil, k.keys.whyNot(peer, digest)
}

// Ticket is a challenge that was presented in time by the right peer.
type Ticket struct {
	keeper *Keeper
	entry  *entry
}

// Consume uses the challenge up and unlinks its file; call it before the body
// of a 200 is written. False: another answer was first, and this request counts
// as having presented a used key.
func (t *Ticket) Consume() bool {
	k := t.keeper
	k.mu.Lock()
	if t.entry.used {
		k.counters.Refused++
		k.mu.Unlock()
		return false
	}
	t.entry.used = true
	k.counters.Redeemed++
	there := k.keys.remove(t.entry)
	k.mu.Unlock()
	if there {
		k.unlink([]*entry{t.entry})
	}
	return true
}

// drop takes a key back that never became a file.
func (k *Keeper) drop(e *entry) {
	k.mu.Lock()
	k.keys.remove(e)
	k.counters.Refused++
	k.mu.Unlock()
}

// countGone keeps the figures of keys that left without an answer; k.mu is held.
func (k *Keeper) countGone(gone []*entry) {
	k.counters.Expired += uint64(len(gone))
}

// unlink removes the files of keys that are no longer registered.
func (k *Keeper) unlink(gone []*entry) {
	for _, e := range gone {
		if !k.hold(e.dir) {
			continue // the directory was given up and its files with it
		}
		k.removeFile(e)
		k.release(e.dir)
	}
}

func (k *Keeper) removeFile(e *entry) {
	if err := e.dir.dir.Remove(e.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.log.Warn("challenge file stays until the next rescan", "path", k.path, "reason", err)
		k.Rescan()
	}
}

// newName returns a random UUID (RFC 9562, version 4) with the suffix .key.
func newName() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	dst := make([]byte, 0, 36+len(suffix))
	for i, group := range [][]byte{b[:4], b[4:6], b[6:8], b[8:10], b[10:]} {
		if i > 0 {
			dst = append(dst, '-')
		}
		dst = hex.AppendEncode(dst, group)
	}
	return string(append(dst, suffix...))
}

// ownName reports whether name is of the form that newName makes: the only
// files that are ever removed.
func ownName(name string) bool {
	stem, ok := strings.CutSuffix(name, suffix)
	if !ok || len(stem) != 36 {
		return false
	}
	for i := range len(stem) {
		c := stem[i]
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (c == '-') || !dash && !isHex(c) {
			return false
		}
	}
	return true
}

// isHex reports whether c is a hexadecimal digit in lower case.
func isHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' }
