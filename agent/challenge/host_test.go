package challenge

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postern/platform"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// host is a platform.Host over a real directory: what it enforces is mode 0750
// and identity of the held directory, which is what a Keeper relies on.
type host struct {
	t    *testing.T
	dirs platform.Dirs
	now  atomic.Int64 // boot time; unless a test counts otherwise

	mu        sync.Mutex
	secureErr error
	wayErr    error // why clients cannot get here by their path
	secured   int
	foreign   map[string]bool // names that another account owns
	open      int             // directories that are not closed
}

func newHost(t *testing.T) *host {
	t.Helper()
	base := t.TempDir()
	h := &host{t: t, foreign: make(map[string]bool)}
	h.dirs.Tokens = filepath.Join(base, "tokens")
	h.dirs.TokensLiteral = h.dirs.Tokens
	h.mkdir()
	t.Cleanup(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.open > 1 { // one stays with a Keeper that was never run
			t.Errorf("%d directories were left open", h.open)
		}
	})
	return h
}

func (h *host) mkdir() {
	h.t.Helper()
	if err := os.Mkdir(h.dirs.Tokens, 0o750); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) chmod(mode fs.FileMode) {
	h.t.Helper()
	if err := os.Chmod(h.dirs.Tokens, mode); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) Dirs() platform.Dirs   { return h.dirs }
func (h *host) Clock() platform.Clock { return platform.Clock{Boot: time.Duration(h.now.Load())} }
func (h *host) pass(d time.Duration)  { h.now.Add(int64(d)) }
func (h *host) setSecure(err error)   { h.mu.Lock(); h.secureErr = err; h.mu.Unlock() }

func (h *host) setWay(err error) { h.mu.Lock(); h.wayErr = err; h.mu.Unlock() }

func (h *host) way() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.wayErr
}

func (h *host) Secure(path string, _ platform.Access) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.secured++
	if h.secureErr != nil {
		return h.secureErr
	}
	return os.Mkdir(path, 0o750)
}

func (h *host) OpenDir(path string, a platform.Access) (platform.Dir, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	d := &dir{host: h, root: root, path: path}
	if a != platform.TokenReaders {
		err = errors.New("a token directory is for token readers")
	} else {
		err = d.access()
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	h.mu.Lock()
	h.open++
	h.mu.Unlock()
	return d, nil
}

// dir is a held directory.
type dir struct {
	host *host
	root *os.Root
	path string
}

func (d *dir) Path() string { return d.path }

func (d *dir) access() error {
	info, err := d.root.Stat(".")
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode != 0o750 {
		return &platform.AccessError{
			Path: d.path, Want: platform.TokenReaders,
			Problem: fmt.Sprintf("mode is %04o, want 0750", mode), Fix: "chmod 0750 " + d.path,
		}
	}
	return nil
}

func (d *dir) Check() error {
	if err := d.inPlace(); err != nil {
		return err
	}
	return d.access()
}

// inPlace is what a platform's Create does before it writes.
func (d *dir) inPlace() error {
	held, err := d.root.Stat(".")
	if err != nil {
		return err
	}
	there, err := os.Stat(d.path)
	if err != nil {
		return err
	}
	if !os.SameFile(held, there) {
		return &platform.AccessError{Path: d.path, Problem: "another directory stands at the path"}
	}
	return d.host.way()
}

func (d *dir) Create(name string, content []byte) error {
	if err := d.inPlace(); err != nil {
		return err
	}
	f, err := d.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o440)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

func (d *dir) Remove(name string) error {
	d.host.mu.Lock()
	foreign := d.host.foreign[name]
	d.host.mu.Unlock()
	if foreign {
		return errors.New("not ours")
	}
	return d.root.Remove(name)
}

func (d *dir) Names() ([]platform.Entry, error) {
	list, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return nil, err
	}
	entries := make([]platform.Entry, 0, len(list))
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	for _, e := range list {
		entries = append(entries, platform.Entry{Name: e.Name(), Ours: e.Type().IsRegular() && !d.host.foreign[e.Name()]})
	}
	return entries, nil
}

func (d *dir) Close() error {
	d.host.mu.Lock()
	d.host.open--
	d.host.mu.Unlock()
	return d.root.Close()
}

// keeper returns a Keeper that polls.
func (h *host) keeper() *Keeper {
	h.t.Helper()
	k, err := New(Options{Host: h, Poll: true})
	if err != nil {
		h.t.Fatal(err)
	}
	return k
}

// names lists the directory.
func (h *host) names() []string {
	h.t.Helper()
	list, err := os.ReadDir(h.dirs.Tokens)
	if err != nil {
		h.t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// mint makes a challenge and reads its secret as a client would.
func mint(t *testing.T, k *Keeper, peer platform.Peer) (path, secret string) {
	t.Helper()
	path, err := k.Mint(peer)
	if err != nil {
		t.Fatalf("mint for %v: %v", peer, err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, string(content)
}

func mustRedeem(t *testing.T, k *Keeper, peer platform.Peer, secret string) *Ticket {
	t.Helper()
	ticket, err := k.Redeem(peer, secret)
	if err != nil {
		t.Fatalf("redeem for %v: %v", peer, err)
	}
	return ticket
}

func mustRefuse(t *testing.T, k *Keeper, peer platform.Peer, secret, reason string) {
	t.Helper()
	ticket, err := k.Redeem(peer, secret)
	if ticket != nil || !errors.Is(err, ErrInvalid) {
		t.Fatalf("redeem for %v: got %v, %v, want ErrInvalid", peer, ticket, err)
	}
	if !strings.Contains(err.Error(), reason) {
		t.Errorf("redeem for %v: reason is %q, want it to say %q", peer, err, reason)
	}
}

const (
	alice = platform.Peer("uid:1001")
	bob   = platform.Peer("uid:1002")
)
