//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"postern/platform"
)

// Prepare makes the state, runtime and token directories that are missing and
// gives them to account, "user", "user:group" or numbers. It is for root at
// the start of `run --user`, where no init system makes directories; what
// exists keeps its owner (firmware-notes/storage.md).
func (h *Host) Prepare(account string) error {
	uid, gid, err := h.resolve(account)
	if err != nil {
		return err
	}
	for _, d := range []struct {
		path string
		a    platform.Access
	}{{h.dirs.State, platform.Private}, {h.dirs.Runtime, platform.Public}, {h.dirs.Tokens, platform.TokenReaders}} {
		if err := h.prepareDir(d.path, d.a, uid, gid); err != nil {
			return err
		}
	}
	return nil
}

// prepareDir makes one directory for another account, in a directory of root:
// what lies in a directory of the account is for the account to make, once we
// are it, and never for root.
func (h *Host) prepareDir(path string, a platform.Access, uid, gid uint32) error {
	p, err := h.policy(a)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	err = unix.Lstat(path, &st)
	if err == nil {
		return nil // the account itself will verify it
	}
	if !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if err := unix.Lstat(filepath.Dir(path), &st); err == nil && st.Uid == uid {
		return nil
	}
	parent, base, err := h.parent(path)
	if err != nil {
		return err
	}
	defer parent.close()
	temp := temporaryName(base)
	if err := unix.Mkdirat(parent.fd, temp, 0o700); err != nil {
		return &os.PathError{Op: "make directory", Path: path, Err: err}
	}
	err = h.giveDir(parent, temp, p, uid, gid)
	if err == nil {
		err = h.renameNew(parent, temp, base)
	}
	if err != nil {
		_ = unix.Unlinkat(parent.fd, temp, unix.AT_REMOVEDIR) // empty and ours
	}
	return err
}

// giveDir sets the access and then, last, the owner.
func (h *Host) giveDir(parent *node, name string, p policy, uid, gid uint32) error {
	n, err := h.open(parent, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer n.close()
	if err := dress(n, p, p.dirMode()); err != nil {
		return err
	}
	if p.gid >= 0 {
		gid = uint32(p.gid) //nolint:gosec // a gid has 32 bits, -1 is sifted out above
	}
	if err := unix.Fchown(n.fd, int(uid), int(gid)); err != nil {
		return &os.PathError{Op: "chown", Path: filepath.Join(parent.path, name), Err: err}
	}
	return nil
}

// Drop changes this process, on all threads and for good, to account ("user",
// "user:group" or numbers): groups, gid, uid, capabilities. It reads the result
// back from every thread; after an error the process must exit. Where we are
// that account already it does nothing but check.
func (h *Host) Drop(account string) error {
	uid, gid, err := h.resolve(account)
	if err != nil {
		return err
	}
	var groups []uint32 // those that we did not choose are not ours to judge
	if os.Geteuid() == 0 {
		groups = []uint32{gid}
		if err := syscall.Setgroups([]int{int(gid)}); err != nil {
			return fmt.Errorf("drop to %s: setgroups: %w", account, err)
		}
		if err := syscall.Setresgid(int(gid), int(gid), int(gid)); err != nil {
			return fmt.Errorf("drop to %s: setresgid: %w", account, err)
		}
		if err := syscall.Setresuid(int(uid), int(uid), int(uid)); err != nil {
			return fmt.Errorf("drop to %s: setresuid: %w", account, err)
		}
	}
	if err := dropped(uid, gid, groups...); err != nil {
		return fmt.Errorf("drop to %s: %w", account, err)
	}
	return nil
}

// MayRun reports whether account may execute program, by starting it as the
// account; it is ended before it does anything.
func (h *Host) MayRun(ctx context.Context, account, program string) error {
	uid, gid, err := h.resolve(account)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, "version")
	cmd.Dir, cmd.Env = "/", []string{"GOTRACEBACK=none"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	if err := cmd.Start(); errors.Is(err, unix.EPERM) {
		return nil // nobody becomes another account here, which Drop says better
	} else if err != nil {
		return err
	}
	_ = cmd.Process.Kill() // it may be done already
	_ = cmd.Wait()         // killed
	return nil
}

// resolve reads "user", "user:group" or numbers. Without a group it is the
// readers' group, else the user's own.
func (h *Host) resolve(account string) (uid, gid uint32, err error) {
	name, groupName, hasGroup := strings.Cut(account, ":")
	u, ok := h.accounts.user(name)
	if !ok {
		return 0, 0, fmt.Errorf("user %q does not exist; fix: useradd --system %s", name, name)
	}
	gid = u.gid
	if !hasGroup {
		groupName = h.group
	}
	if groupName != "" {
		if gid, ok = h.accounts.gid(groupName); !ok {
			return 0, 0, fmt.Errorf("group %s: %w; fix: groupadd --system %s", groupName, platform.ErrNoGroup, groupName)
		}
	}
	if gid == noGroup {
		return 0, 0, fmt.Errorf("user %q has no primary group here; write %s:GROUP", name, name)
	}
	return u.uid, gid, nil
}

// dropped reads back what every thread of the process is now. The kernel takes
// permitted and effective capabilities away when uid 0 is left; this is where
// it is believed only after a look.
func dropped(uid, gid uint32, groups ...uint32) error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	seen := 0
	for _, t := range tasks {
		text := readLimited("/proc/self/task/"+t.Name()+"/status", 64<<10)
		if text == "" {
			continue // the thread ended
		}
		if err := statusFits(text, uid, gid, groups...); err != nil {
			return fmt.Errorf("thread %s: %w", t.Name(), err)
		}
		seen++
	}
	if seen == 0 {
		return errors.New("read back: no thread could be read")
	}
	return nil
}

// statusFits checks one /proc/PID/status: real, effective, saved and file ids,
// the supplementary groups if they are named, and no capability left unless the
// account is root.
func statusFits(status string, uid, gid uint32, groups ...uint32) error {
	id := func(n uint32) string { return strings.TrimSpace(strings.Repeat(fmt.Sprintf("%d ", n), 4)) }
	want := map[string]string{"Uid": id(uid), "Gid": id(gid)}
	if len(groups) > 0 {
		want["Groups"] = strings.Trim(fmt.Sprint(groups), "[]")
	}
	if uid != 0 {
		for _, set := range []string{"CapPrm", "CapEff", "CapAmb"} {
			want[set] = strings.Repeat("0", 16)
		}
	}
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		expected, ok := want[key]
		if !ok {
			continue
		}
		if got := strings.Join(strings.Fields(value), " "); got != expected {
			return fmt.Errorf("%s is %s, want %s", key, got, expected)
		}
		delete(want, key)
	}
	if _, missing := want["Uid"]; missing {
		return errors.New("no Uid line")
	}
	return nil
}
