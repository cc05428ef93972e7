package platformtest

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/platform"
)

// SimUID is the account that a Sim runs under.
const SimUID = 942

// Sim is a platform.Host for tests of the whole agent, made to live inside a
// testing/synctest bubble: files are real, below a directory of its own, and
// checked by mode alone; time is the bubble's, moved by Step, Suspend and
// Reboot; connections are pipes in memory; peers are whom SetPeer says. Make it
// inside the bubble. Its methods are safe for concurrent use.
type Sim struct {
	dirs platform.Dirs

	mu           sync.Mutex
	offset       time.Duration // of the wall clock against the bubble's time
	booted       time.Time     // the bubble's time at boot, less what was slept
	boots        int
	synchronised bool
	peer         func(net.Conn) platform.Peer
	users        map[string]platform.Peer
	members      map[string][]platform.Peer // by group
	facts        []string
	filesystem   platform.FileSystem
	watchdog     time.Duration
	notified     []string
	network      map[string]*listener // by address
	held         map[string]*simDir
	broken       map[string]error // by path: what Check finds
}

var _ platform.Host = (*Sim)(nil)

// NewSim returns a machine that has just booted, with a synchronised clock at
// the bubble's time and callers of uid 1000 (user "app", in group "himds").
func NewSim(t testing.TB) *Sim {
	t.Helper()
	root := t.TempDir()
	s := &Sim{
		booted:       time.Now(),
		boots:        1,
		synchronised: true,
		peer:         func(net.Conn) platform.Peer { return platform.UIDPeer(1000) },
		users: map[string]platform.Peer{
			"root": platform.UIDPeer(0), "postern": platform.UIDPeer(SimUID), "app": platform.UIDPeer(1000),
		},
		members:    map[string][]platform.Peer{"himds": {platform.UIDPeer(SimUID), platform.UIDPeer(1000)}},
		facts:      []string{"board=0a", "emmc=0b", "mac=0c", "machine-id=0d"},
		filesystem: platform.FileSystem{Type: "ext4", Free: 1 << 30},
		network:    map[string]*listener{},
		held:       map[string]*simDir{},
		broken:     map[string]error{},
		dirs: platform.Dirs{
			State:         filepath.Join(root, "state"),
			Runtime:       filepath.Join(root, "run"),
			Tokens:        filepath.Join(root, "run", "tokens"),
			TokensLiteral: filepath.Join(root, "run", "tokens"),
			Config:        filepath.Join(root, "postern.toml"),
		},
	}
	for _, d := range []struct {
		path string
		a    platform.Access
	}{{s.dirs.State, platform.Private}, {s.dirs.Runtime, platform.Public}, {s.dirs.Tokens, platform.TokenReaders}} {
		if err := s.Secure(d.path, d.a); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// Clock reads the simulated clocks.
func (s *Sim) Clock() platform.Clock {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	return platform.Clock{
		Wall:         now.Round(0).Add(s.offset).UTC(),
		Boot:         now.Sub(s.booted),
		BootID:       fmt.Sprintf("boot-%d", s.boots),
		Synchronised: s.synchronised,
	}
}

// Step moves the wall clock by d, as NTP or a user would; boot time goes on.
func (s *Sim) Step(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offset += d
}

// SetWall steps the wall clock to t.
func (s *Sim) SetWall(t time.Time) { s.Step(t.Sub(s.Clock().Wall)) }

// Suspend lets d pass for the wall clock and for boot time while timers, like
// those of a sleeping machine, do not notice.
func (s *Sim) Suspend(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offset += d
	s.booted = s.booted.Add(-d)
}

// Reboot is a power cut and a start: boot time begins again under another
// BootID, listeners and held directories are gone, the runtime directory, on
// tmpfs, is empty. The wall clock goes on; a board without a battery is
// Reboot followed by SetWall. The agent must have been stopped before.
func (s *Sim) Reboot(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	s.booted = time.Now()
	s.boots++
	listeners := s.network
	s.network = map[string]*listener{}
	s.held = map[string]*simDir{}
	s.notified = nil
	s.mu.Unlock()
	for _, l := range listeners {
		_ = l.Close() // the machine is off
	}
	s.wipeRuntime(t)
}

// SetSynchronised says whether the kernel claims that NTP steers the clock.
func (s *Sim) SetSynchronised(yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.synchronised = yes
}

// SetFingerprint replaces the facts of the board, each "name=digest".
func (s *Sim) SetFingerprint(facts ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.facts = facts
}

// Fingerprint returns the facts of the board.
func (s *Sim) Fingerprint() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.facts...)
}

// Kernel is that of no system.
func (s *Sim) Kernel() string { return "0.0.0-sim" }

// SetPeer replaces the answer to Peer. The connection is the accepting end.
func (s *Sim) SetPeer(peer func(net.Conn) platform.Peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peer = peer
}

// Peer is whom SetPeer says; by default uid 1000. A connection made with
// DialAs is the peer given there.
func (s *Sim) Peer(c net.Conn) platform.Peer {
	for {
		inner, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		c = inner.NetConn()
	}
	if sc, ok := c.(*simConn); ok && sc.dialledAs != nil {
		return *sc.dialledAs
	}
	s.mu.Lock()
	peer := s.peer
	s.mu.Unlock()
	return peer(c)
}

// AddUser makes an account known, with the groups that it belongs to.
func (s *Sim) AddUser(name string, p platform.Peer, groups ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users[name] = p
	for _, g := range groups {
		s.members[g] = append(s.members[g], p)
	}
}

// Self is uid SimUID.
func (s *Sim) Self() platform.Peer { return platform.UIDPeer(SimUID) }

// Account resolves a user name, or a number.
func (s *Sim) Account(user string) platform.Peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := s.users[user]; ok {
		return p
	}
	if id, ok := platform.Peer("uid:" + user).UID(); ok {
		return platform.UIDPeer(id)
	}
	return platform.Unknown
}

// UserName is the reverse of Account.
func (s *Sim) UserName(p platform.Peer) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, q := range s.users {
		if q == p && p != platform.Unknown {
			return name
		}
	}
	return ""
}

// Member reports whether p was added to the group.
func (s *Sim) Member(p platform.Peer, group string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.members[group] {
		if q == p && p != platform.Unknown {
			return true
		}
	}
	return false
}

// Administrator reports whether p is uid 0 or SimUID.
func (s *Sim) Administrator(p platform.Peer) bool {
	return p == platform.UIDPeer(0) || p == s.Self()
}

// Notify remembers the state.
func (s *Sim) Notify(state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notified = append(s.notified, strings.Split(state, "\n")...)
}

// Notified returns what Notify was told since boot, line by line.
func (s *Sim) Notified() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.notified...)
}

// SetWatchdog sets what Watchdog returns; 0 by default.
func (s *Sim) SetWatchdog(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchdog = d
}

// Watchdog returns what SetWatchdog set.
func (s *Sim) Watchdog() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watchdog
}

// Prepare does nothing: NewSim made the directories.
func (s *Sim) Prepare(string) error { return nil }

// Drop does nothing: the account is simulated.
func (s *Sim) Drop(string) error { return nil }

// Harden does nothing: the process is the test's.
func (s *Sim) Harden() (string, error) { return "simulated", nil }

// Confine does nothing.
func (s *Sim) Confine(platform.Confinement) (string, error) { return "simulated", nil }

// LockHolder sees nobody.
func (s *Sim) LockHolder(string) string { return "" }

// PortOwner names this process for an address that is listened on.
func (s *Sim) PortOwner(address string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.network[address] == nil {
		return ""
	}
	return fmt.Sprintf("uid %d (postern)", SimUID)
}
