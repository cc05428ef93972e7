//go:build linux

package inits

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"postern/crosscompile/qemu"
)

const (
	suite = "bookworm"
	// edition counts the changes of repair, so that an older tree is not used.
	edition = "6"
)

// Packages of the two trees; the five small inits lie in one and are chosen on
// the kernel's command line.
func systemdPackages() []string {
	return []string{"systemd", "systemd-sysv", "dbus", "udev", "busybox-static"}
}

func smallPackages() []string {
	return []string{"sysvinit-core", "runit", "s6", "openrc", "busybox-static"}
}

// baseTree returns a tree of unpacked Debian packages of an architecture with
// the few files that their maintainer scripts would have made. Nobody may change
// it. A tree is kept under what went into it, for as long as the cache is.
func baseTree(ctx context.Context, arch string, packages []string) (string, error) {
	cache, err := qemu.Cache()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(strings.Join(append([]string{edition, suite, arch}, packages...), " ")))
	dir := filepath.Join(cache, fmt.Sprintf("root-%s-%s-%x", suite, arch, sum[:6]))
	unlock, err := lock(dir + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	half := dir + ".half"
	if err := os.RemoveAll(half); err != nil {
		return "", err
	}
	if err := extract(ctx, half, arch, packages); err != nil {
		return "", err
	}
	if err := repair(half); err != nil {
		return "", err
	}
	return dir, os.Rename(half, dir)
}

func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// extract unpacks the packages and what they depend on; nothing is configured,
// so that nothing of the other architecture has to be executed.
func extract(ctx context.Context, dir, arch string, packages []string) error {
	cmd := exec.CommandContext(ctx, "mmdebstrap", "--mode=root", "--architectures="+arch, "--variant=extract",
		"--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", "--include="+strings.Join(packages, ","), suite, dir)
	var words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &words, &words
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("mmdebstrap: %w\n%s", err, words.String())
	}
	return nil
}

// repair makes what an installation would have made. Without a passwd chpst and
// s6-setuidgid fail; without PAM files OpenRC's supervise-daemon respawns its
// child for ever and says nothing.
func repair(root string) error {
	files := map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n" +
			"member:x:2001:2001::/nonexistent:/bin/sh\nstranger:x:2002:2002::/nonexistent:/bin/sh\n",
		"etc/group": "root:x:0:\ndaemon:x:1:\nbin:x:2:\nsys:x:3:\nadm:x:4:\ntty:x:5:\ndisk:x:6:\nlp:x:7:\nkmem:x:15:\nshadow:x:42:\nutmp:x:43:\nuucp:x:10:\n" +
			"nogroup:x:65534:\nmember:x:2001:\nstranger:x:2002:\n",
		"etc/shadow":           "root:*:19000:0:99999:7:::\n",
		"etc/nsswitch.conf":    "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
		"etc/hosts":            "127.0.0.1 localhost\n::1 localhost\n",
		"etc/hostname":         "gw-0042\n",
		"etc/fstab":            "/dev/vda / ext4 defaults 0 0\n",
		"etc/network/if-state": "",
	}
	for _, name := range []string{"other", "common-auth", "common-account", "common-session", "common-session-noninteractive", "common-password"} {
		kind := strings.TrimSuffix(strings.TrimPrefix(name, "common-"), "-noninteractive")
		for _, k := range []string{"auth", "account", "session", "password"} {
			if name == "other" || k == kind {
				files["etc/pam.d/"+name] += k + " required pam_permit.so\n"
			}
		}
	}
	for _, dir := range []string{"proc", "sys", "dev", "run", "tmp", "root", "mnt", "story", "var/lib", "var/log"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(root, "tmp"), 0o777|os.ModeSticky); err != nil {
		return err
	}
	if err := write(root, 0o644, files); err != nil {
		return err
	}
	if err := os.Chmod(filepath.Join(root, "etc/shadow"), 0o600); err != nil {
		return err
	}
	if err := os.Symlink("default", filepath.Join(root, "etc/runit/runsvdir/current")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return applets(root)
}

// applets are the programs that shipped files and Debian's own scripts call and
// that no package of the tree brings: links to busybox.
func applets(root string) error {
	for _, name := range []string{
		"sh", "cat", "chmod", "chown", "cp", "cut", "date", "grep", "head", "hostname", "id", "kill", "ln", "logger", "ls", "mkdir", "mknod", "mount",
		"mountpoint", "mv", "printf", "ps", "readlink", "rm", "rmdir", "sed", "seq", "setsid", "sleep", "sort", "stat", "sync", "tail", "test", "touch",
		"tr", "true", "umount", "uname", "wc", "dirname", "basename", "awk", "find", "env", "expr", "stty", "dmesg", "syslogd", "ip", "ifconfig",
	} {
		if found(root, name) {
			continue
		}
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			return err
		}
	}
	return nil
}

func found(root, name string) bool {
	for _, dir := range []string{"bin", "sbin", "usr/bin", "usr/sbin"} {
		if _, err := os.Lstat(filepath.Join(root, dir, name)); err == nil {
			return true
		}
	}
	return false
}

// write makes files with their parents.
func write(root string, mode os.FileMode, files map[string]string) error {
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // some are links
			return err
		}
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			return err
		}
		if err := os.Chmod(path, mode); err != nil {
			return err
		}
	}
	return nil
}

// command runs a program of the host; the error holds what it said.
func command(ctx context.Context, name string, args ...string) (string, error) {
	path, err := qemu.Find(name)
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out), nil
}
