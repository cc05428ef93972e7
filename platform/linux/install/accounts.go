//go:build linux

package install

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The agent's account, and the group whose members may read challenges.
const (
	UserName  = "postern"
	GroupName = "himds"
)

const gecos = "Postern managed identity agent"

// table is one of the account files: lines of fields.
type table struct {
	path  string
	there *found
	lines []string
}

func (r *root) table(path string) (table, error) {
	f, err := r.look(path)
	if err != nil {
		return table{}, err
	}
	t := table{path: path, there: f}
	if f != nil {
		t.lines = strings.Split(strings.TrimRight(string(f.content), "\n"), "\n")
	}
	return t, nil
}

// id is the number of name: the third field in passwd and in group.
func (t table) id(name string) (int, bool) {
	for _, line := range t.lines {
		f := strings.Split(line, ":")
		if len(f) < 3 || f[0] != name {
			continue
		}
		n, err := strconv.ParseUint(f[2], 10, 32)
		return int(n), err == nil
	}
	return 0, false
}

func (t table) nameOf(id int) string {
	for _, line := range t.lines {
		if f := strings.Split(line, ":"); len(f) >= 3 && f[2] == strconv.Itoa(id) {
			return f[0]
		}
	}
	return ""
}

// hasAccount reports whether the user postern or the group himds is there.
func (r *root) hasAccount(name string) bool {
	path := "/etc/passwd"
	if name == GroupName {
		path = "/etc/group"
	}
	t, err := r.table(path)
	return err == nil && hasName(t.lines, name)
}

func (r *root) userName(uid int) string {
	t, err := r.table("/etc/passwd")
	if err != nil {
		return "uid " + strconv.Itoa(uid)
	}
	if name := t.nameOf(uid); name != "" {
		return name + " (uid " + strconv.Itoa(uid) + ")"
	}
	return "uid " + strconv.Itoa(uid)
}

// owner are the agent's numbers; false until the account exists.
func (p *Plan) owner() (owner, bool) {
	users, err1 := p.root.table("/etc/passwd")
	groups, err2 := p.root.table("/etc/group")
	if err1 != nil || err2 != nil {
		return owner{-1, -1}, false
	}
	uid, okUser := users.id(UserName)
	gid, okGroup := groups.id(GroupName)
	return owner{uid, gid}, okUser && okGroup
}

func (p *Plan) decideAccount(s Step) (Step, *Refusal) {
	name, path, want := UserName, "/etc/passwd", p.options.UID
	if s.item.name == GroupName {
		name, path, want = GroupName, "/etc/group", p.options.GID
	}
	t, err := p.root.table(path)
	if err != nil {
		return s, refused(err)
	}
	if t.there == nil {
		return s, &Refusal{Path: p.root.outside(path), Problem: "does not exist, and the account " + name + " has to stand there", Fix: "ls -l " + p.root.outside(filepath.Dir(path))}
	}
	s.Path, s.Owner = name, ""
	id, exists := t.id(name)
	switch {
	case exists && id == 0:
		return s, &Refusal{Path: path, Problem: name + " is number 0 there: the agent must not be root", Fix: "grep ^" + name + ": " + path}
	case exists && want >= 0 && id != want:
		return s, &Refusal{Path: path, Problem: fmt.Sprintf("has %s as number %d, not %d", name, id, want), Fix: "sudo postern install   # without --uid and --gid"}
	case exists:
		s.Do, s.Note = DoUnchanged, "number "+strconv.Itoa(id)
	default:
		if other := t.nameOf(want); want >= 0 && other != "" {
			return s, &Refusal{Path: path, Problem: fmt.Sprintf("has number %d as %s", want, other), Fix: "sudo postern install   # without --uid and --gid"}
		}
		s.Do = DoMake
	}
	return s, nil
}

// free is the highest system number that is free in both files, from 999 down
// as distributions give them.
func free(tables ...table) (int, error) {
	for n := 999; n >= 100; n-- {
		taken := false
		for _, t := range tables {
			taken = taken || t.nameOf(n) != ""
		}
		if !taken {
			return n, nil
		}
	}
	return 0, fmt.Errorf("no system number from 100 to 999 is free in /etc/passwd and /etc/group")
}

// addAccount writes the account into the files of the tree, one line each, the
// line that others refer to first.
func (p *Plan) addAccount(name string) error {
	unlock, err := p.root.lockAccounts()
	if err != nil {
		return err
	}
	defer unlock()
	users, err := p.root.table("/etc/passwd")
	if err != nil {
		return err
	}
	groups, err := p.root.table("/etc/group")
	if err != nil {
		return err
	}
	if name == GroupName {
		id := p.options.GID
		if id < 0 {
			if id, err = free(users, groups); err != nil {
				return err
			}
		}
		return p.root.addLines(
			addition{"/etc/gshadow", GroupName + ":!::"},
			addition{"/etc/group", GroupName + ":x:" + strconv.Itoa(id) + ":"})
	}
	gid, ok := groups.id(GroupName)
	if !ok {
		return fmt.Errorf("group %s is not in %s", GroupName, p.root.outside("/etc/group"))
	}
	id := p.options.UID
	if id < 0 {
		if id, err = free(users, groups); err != nil {
			return err
		}
	}
	shell := "/usr/sbin/nologin"
	if f, err := p.root.look(shell); err != nil || f == nil {
		shell = "/bin/false"
	}
	return p.root.addLines(
		addition{"/etc/shadow", UserName + ":!*:::::::"},
		addition{"/etc/passwd", fmt.Sprintf("%s:x:%d:%d:%s:/nonexistent:%s", UserName, id, gid, gecos, shell)})
}

type addition struct{ path, line string }

// addLines appends each line unless its first field is there already. The
// shadow files are left out where the system has none.
func (r *root) addLines(list ...addition) error {
	for _, a := range list {
		t, err := r.table(a.path)
		if err != nil {
			return err
		}
		name, _, _ := strings.Cut(a.line, ":")
		if t.there == nil || hasName(t.lines, name) {
			continue
		}
		text := strings.TrimRight(string(t.there.content), "\n") + "\n" + a.line + "\n"
		if err := r.rewrite(t, text); err != nil {
			return err
		}
	}
	return nil
}

func hasName(lines []string, name string) bool {
	for _, line := range lines {
		if strings.HasPrefix(line, name+":") {
			return true
		}
	}
	return false
}

// removeName takes the line of name out of an account file.
func (r *root) removeName(path, name string) error {
	t, err := r.table(path)
	if err != nil || t.there == nil {
		return err
	}
	if !hasName(t.lines, name) {
		if temp := temporaryPath(path); r.there(temp) { // of a run that was stopped
			return r.remove(temp, false)
		}
		return nil
	}
	var text strings.Builder
	for _, line := range t.lines {
		if !strings.HasPrefix(line, name+":") {
			text.WriteString(line + "\n")
		}
	}
	return r.rewrite(t, text.String())
}

// rewrite replaces a file that is not ours, with its own mode and owner.
func (r *root) rewrite(t table, text string) error {
	if t.there.kind() != unix.S_IFREG {
		return fmt.Errorf("%s is no regular file", t.path)
	}
	o := owner{int(t.there.st.Uid), int(t.there.st.Gid)}
	if !asRoot() {
		o = owner{-1, -1}
	}
	return r.write(t.path, []byte(text), t.there.st.Mode&0o7777, o)
}

// lockAccounts takes the lock of lckpwdf(3), which the system's own tools honour.
func (r *root) lockAccounts() (unlock func(), err error) {
	parent, name, err := r.parent("/etc/.pwd.lock")
	if err != nil {
		return nil, err
	}
	defer parent.close()
	fd, err := unix.Openat(parent.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the accounts: %w", err)
	}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("lock the accounts: %w", err)
	}
	return func() { _ = unix.Close(fd) }, nil
}
