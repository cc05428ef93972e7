//go:build linux

package linux

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"postern/platform"
	"postern/platform/platformtest"
)

// playDropped becomes the account of its environment and tries what it must no
// longer be able to do, and what it must.
func playDropped() error {
	base, account := os.Getenv("BASE"), os.Getenv("ACCOUNT")
	h, err := childHost(base)
	if err != nil {
		return err
	}
	if err := h.Drop(account); err != nil {
		return err
	}
	if err := syscall.Setuid(0); err == nil {
		return errors.New("became root again")
	}
	if err := os.Chown("/proc/self/fd/0", 0, 0); err == nil {
		return errors.New("still has CAP_CHOWN")
	}
	if err := h.Drop("7:7"); err == nil {
		return errors.New("was told that it is another account")
	}
	if err := onOldKernel(h); err != nil {
		return err
	}
	if _, err := os.ReadFile(filepath.Join(base, "root-only")); !errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("read a file of root: %w", err)
	}
	groups, err := os.Getgroups()
	if err != nil || len(groups) != 1 || groups[0] != 43210 {
		return fmt.Errorf("groups are %v, %w", groups, err)
	}
	for path, a := range map[string]platform.Access{h.dirs.State: platform.Private, h.dirs.Runtime: platform.Public, h.dirs.Tokens: platform.TokenReaders} {
		if err := h.Secure(path, a); err != nil {
			return err
		}
	}
	d, err := h.OpenDir(h.dirs.Tokens, platform.TokenReaders)
	if err != nil {
		return err
	}
	if err := d.Create("a.key", []byte("x")); err != nil {
		return err
	}
	return h.WriteFile(filepath.Join(h.dirs.State, "kek"), []byte("x"), platform.Private)
}

// onOldKernel binds a socket to its device twice, which takes a capability the
// second time, as the first time did before kernel 5.7: only addresses that
// the kernel itself keeps from the network are let off.
func onOldKernel(h *Host) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // a test's socket
	if err := unix.BindToDevice(fd, loopbackDevice); err != nil {
		return err
	}
	if err := unix.BindToDevice(fd, loopbackDevice); err != unix.EPERM {
		return fmt.Errorf("bound twice: %w; this test proves nothing", err)
	}
	if err := h.bindLoopback(fd, netip.MustParseAddrPort("127.0.0.1:40342")); err != nil {
		return fmt.Errorf("real loopback: %w", err)
	}
	if err := h.bindLoopback(fd, netip.MustParseAddrPort("169.254.169.254:80")); err == nil {
		return errors.New("the IMDS address was let off")
	}
	return nil
}

// childHost is testHost for a child; the literal path is the directory itself.
func childHost(base string) (*Host, error) {
	return newHost(Options{
		StateDir:   filepath.Join(base, "state"),
		RuntimeDir: filepath.Join(base, "run"),
		TokensDir:  filepath.Join(base, "run", "tokens"),
		Config:     filepath.Join(base, "etc", "postern.toml"),
		Group:      os.Getenv("GROUP"),
	}, noEnv)
}

func TestRootPreparesAndTheAgentRunsWithoutIt(t *testing.T) {
	needRoot(t)
	if allThreads() { // with cgo the C library sees to them
		platformtest.NeedFeature(t, platformtest.OwnThreads)
	}
	h := testHost(t)
	base := filepath.Dir(h.dirs.State)
	if err := os.WriteFile(filepath.Join(base, "root-only"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := h.Prepare("54321:43210"); err != nil {
		t.Fatal(err)
	}
	if err := h.Prepare("54321:43210"); err != nil { // again: everything is there
		t.Fatal(err)
	}
	p := start(t, "dropped", func(c *exec.Cmd) { c.Env = append(c.Env, "BASE="+base, "ACCOUNT=54321:43210") })
	_ = p.in.Close()
	if rest, err := p.out.ReadString(0); rest != "" {
		t.Errorf("child said %q, %v", rest, err)
	}
	var st unix.Stat_t
	for path, mode := range map[string]uint32{"state": 0o700, "run": 0o755, "run/tokens": 0o750, "run/tokens/a.key": 0o440, "state/kek": 0o600} {
		if err := unix.Stat(filepath.Join(base, path), &st); err != nil || st.Uid != 54321 || st.Gid != 43210 || st.Mode&0o777 != mode {
			t.Errorf("%s is of %d:%d, mode %04o, %v; want 54321:43210, %04o", path, st.Uid, st.Gid, st.Mode&0o777, err, mode)
		}
	}
}

func TestPrepareLeavesTheOwnerOfWhatExists(t *testing.T) {
	needRoot(t)
	h := testHost(t)
	if err := h.Secure(h.dirs.State, platform.Private); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(h.dirs.State, 7, 7); err != nil {
		t.Fatal(err)
	}
	if err := h.Prepare("54321:43210"); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(h.dirs.State, &st); err != nil || st.Uid != 7 {
		t.Errorf("owner became %d, %v", st.Uid, err)
	}
}

// TestRootMakesNothingInADirectoryOfTheAccount: it could be made to give away
// what the account put there.
func TestRootMakesNothingInADirectoryOfTheAccount(t *testing.T) {
	needRoot(t)
	h := testHost(t)
	if err := os.Mkdir(h.dirs.Runtime, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(h.dirs.Runtime, 54321, 43210); err != nil {
		t.Fatal(err)
	}
	if err := h.Prepare("54321:43210"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(h.dirs.Tokens); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("root made the token directory: %v", err)
	}
}

func TestAccountsAreResolvedBeforeAnythingIsDropped(t *testing.T) {
	root := t.TempDir()
	write(t, root, "etc/passwd", "postern:x:942:100::/:/bin/false\n")
	write(t, root, "etc/group", "himds:x:943:\nusers:x:100:\n")
	for _, test := range []struct {
		account, group string
		uid, gid       uint32
		fails          bool
	}{
		{account: "postern", group: "himds", uid: 942, gid: 943},
		{account: "postern", uid: 942, gid: 100},
		{account: "postern:users", group: "himds", uid: 942, gid: 100},
		{account: "5:6", uid: 5, gid: 6},
		{account: "942", group: "himds", uid: 942, gid: 943},
		{account: "5", fails: true},
		{account: "ghost", fails: true},
		{account: "postern:ghosts", fails: true},
		{account: "", fails: true},
	} {
		h := &Host{group: test.group}
		h.accounts.root = root
		uid, gid, err := h.resolve(test.account)
		if (err != nil) != test.fails || err == nil && (uid != test.uid || gid != test.gid) {
			t.Errorf("%q: got %d:%d, %v", test.account, uid, gid, err)
		}
	}
}

// TestDropIsBelievedOnlyAfterALook: one id, one capability left on one thread.
func TestDropIsBelievedOnlyAfterALook(t *testing.T) {
	const good = "Name:\tx\nUid:\t5\t5\t5\t5\nGid:\t6\t6\t6\t6\nGroups:\t6 \nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapAmb:\t0000000000000000\n"
	if err := statusFits(good, 5, 6, 6); err != nil {
		t.Error(err)
	}
	if err := statusFits(strings.Replace(good, "Groups:\t6", "Groups:\t6 7", 1), 5, 6); err != nil {
		t.Errorf("groups that somebody else chose: %v", err)
	}
	for _, change := range [][2]string{
		{"Uid:\t5\t5\t5\t5", "Uid:\t5\t5\t0\t5"},
		{"Uid:\t5\t5\t5\t5", "Uid:\t0\t5\t5\t5"},
		{"Gid:\t6\t6", "Gid:\t6\t0"},
		{"Groups:\t6", "Groups:\t6 0"},
		{"Groups:\t6", "Groups:\t"},
		{"CapEff:\t0000000000000000", "CapEff:\t0000000000000001"},
		{"CapPrm:\t0", "CapPrm:\t8"},
		{"CapAmb:\t0", "CapAmb:\t8"},
		{"Uid:", "Vid:"},
	} {
		if err := statusFits(strings.Replace(good, change[0], change[1], 1), 5, 6, 6); err == nil {
			t.Errorf("%q passed", change[1])
		}
	}
	if os.Geteuid() == 0 {
		if err := dropped(5, 6); err == nil {
			t.Error("root passed for uid 5")
		}
	}
}
