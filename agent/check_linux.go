package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const machineIDFile = "/etc/machine-id"

// ownerOf is the uid of the file's owner.
func ownerOf(info fs.FileInfo) (int, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(st.Uid), true
}

func readable(path string) bool {
	f, err := os.Open(path)
	if err == nil {
		_ = f.Close()
	}
	return err == nil
}

// asOwner runs f with the account that the state directory belongs to, since
// access is judged from the agent's side: root sees everything. Only root can
// take another account, and gets its own back.
func asOwner(dir string, f func() finding) finding {
	info, err := os.Stat(dir)
	if err != nil || os.Geteuid() != 0 {
		return f()
	}
	owner, known := ownerOf(info)
	if !known || owner == 0 {
		return f()
	}
	if err := syscall.Seteuid(owner); err != nil {
		return f()
	}
	found := f()
	if err := syscall.Seteuid(0); err != nil {
		return bad("sudo postern check", "root cannot be had back: %v", err)
	}
	return found
}

// fastCommit reports an ext4 option under which kernels 5.10 to 5.16 lose
// what fdatasync acknowledged.
func fastCommit() bool {
	var name syscall.Utsname
	if syscall.Uname(&name) != nil {
		return false
	}
	release := strings.SplitN(utsText(name.Release[:]), ".", 3)
	if len(release) < 2 || release[0] != "5" {
		return false
	}
	minor, err := strconv.Atoi(release[1])
	if err != nil || minor < 10 || minor > 16 {
		return false
	}
	options, _ := filepath.Glob("/proc/fs/ext4/*/options") // the pattern is valid
	for _, path := range options {
		if raw, err := os.ReadFile(path); err == nil && bytes.Contains(raw, []byte("fast_commit")) {
			return true
		}
	}
	return false
}

// selfTestAs lets a process of that account ask, with its groups and nothing else.
func (f *facts) selfTestAs(ctx context.Context, name string) finding {
	if os.Geteuid() != 0 {
		return skip("sudo "+only("client-self-test", "--as-user", name), "only root can ask as another user")
	}
	account, err := credentialOf(name)
	if err != nil {
		return bad("id "+name, "%v", err)
	}
	self, err := os.Executable()
	if err != nil {
		return skip("sudo -u "+name+" "+only("client-self-test"), "%v", err)
	}
	args := []string{"check", "--json", "--only", "client-self-test", "--state-dir", f.host.Dirs().State, "--runtime-dir", f.host.Dirs().Runtime}
	if path := f.cfg.Path(); path != "" {
		args = append(args, "--config", path)
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: account}
	var out bytes.Buffer
	cmd.Stdout = &out
	err = cmd.Run()
	var report checkReport
	if jsonErr := json.Unmarshal(out.Bytes(), &report); jsonErr != nil || len(report.Checks) != 1 {
		return skip("sudo -u "+name+" "+only("client-self-test"), "%s could not ask: %v", name, errors.Join(err, jsonErr))
	}
	line := report.Checks[0]
	return finding{verdict: line.Status, text: line.Message, fix: line.Fix, chain: line.Chain}
}

func credentialOf(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, err
	}
	var numbers []uint32
	for _, text := range append([]string{u.Uid, u.Gid}, ids...) {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return nil, err
		}
		numbers = append(numbers, uint32(n))
	}
	return &syscall.Credential{Uid: numbers[0], Gid: numbers[1], Groups: numbers[2:]}, nil
}

// utsText is a NUL-terminated text of uname, whose letters are signed on some machines.
func utsText[T int8 | uint8](letters []T) string {
	var s strings.Builder
	for _, c := range letters {
		if c == 0 {
			break
		}
		s.WriteByte(byte(c))
	}
	return s.String()
}
