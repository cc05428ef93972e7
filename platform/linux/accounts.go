//go:build linux

package linux

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"postern/platform"
)

// maxAccountFile bounds /etc/passwd and /etc/group; a longer file is read up
// to there.
const maxAccountFile = 4 << 20

// user is one line of /etc/passwd, group one of /etc/group.
type user struct {
	name     string
	uid, gid uint32
}

type group struct {
	name    string
	gid     uint32
	members []string
}

// accountFiles reads the system's own two files, and again when they changed.
// There is no name service behind it: a lookup that can block or be answered
// by the network is no base for a decision about access.
type accountFiles struct {
	root string

	mu     sync.Mutex
	passwd cachedFile
	groups cachedFile
	users  []user
	group  []group
}

// cachedFile remembers which version of a file was read.
type cachedFile struct {
	seen unix.Stat_t
}

// changed reports whether path is another file than at the last call.
func (c *cachedFile) changed(path string) bool {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		st = unix.Stat_t{}
	}
	same := st.Dev == c.seen.Dev && st.Ino == c.seen.Ino && st.Size == c.seen.Size &&
		st.Mtim == c.seen.Mtim && st.Ctim == c.seen.Ctim
	c.seen = st
	return !same
}

// readLimited reads at most limit bytes of a system file; a missing one is
// empty.
func readLimited(path string, limit int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }() // read only
	b, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil && !errors.Is(err, io.EOF) {
		return ""
	}
	return string(b)
}

// load brings both lists up to date.
func (a *accountFiles) load() ([]user, []group) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if path := filepath.Join(a.root, "etc/passwd"); a.passwd.changed(path) {
		a.users = parsePasswd(readLimited(path, maxAccountFile))
	}
	if path := filepath.Join(a.root, "etc/group"); a.groups.changed(path) {
		a.group = parseGroup(readLimited(path, maxAccountFile))
	}
	return a.users, a.group
}

// parsePasswd reads name:password:uid:gid:…; lines that are not of that shape
// are passed over, as the C library does.
func parsePasswd(text string) []user {
	var list []user
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimRight(line, "\r\n"), ":")
		if len(f) < 4 || f[0] == "" || f[0][0] == '#' {
			continue
		}
		uid, err1 := parseID(f[2])
		gid, err2 := parseID(f[3])
		if err1 == nil && err2 == nil {
			list = append(list, user{f[0], uid, gid})
		}
	}
	return list
}

// parseGroup reads name:password:gid:member,member.
func parseGroup(text string) []group {
	var list []group
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimRight(line, "\r\n"), ":")
		if len(f) < 3 || f[0] == "" || f[0][0] == '#' {
			continue
		}
		gid, err := parseID(f[2])
		if err != nil {
			continue
		}
		g := group{name: f[0], gid: gid}
		if len(f) > 3 {
			for m := range strings.SplitSeq(f[3], ",") {
				if m != "" {
					g.members = append(g.members, m)
				}
			}
		}
		list = append(list, g)
	}
	return list
}

var errID = errors.New("not an id")

// parseID refuses 2^32-1, which means "no id" to chown and setuid.
func parseID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 1<<32-1 {
		return 0, errID
	}
	return uint32(n), nil
}

// user finds an account by name; a number stands for itself where no account
// has that name (images without a passwd file).
func (a *accountFiles) user(name string) (user, bool) {
	users, _ := a.load()
	if i := slices.IndexFunc(users, func(u user) bool { return u.name == name }); i >= 0 {
		return users[i], true
	}
	id, err := parseID(name)
	if err != nil {
		return user{}, false
	}
	if u, ok := a.byUID(id); ok {
		return u, true
	}
	return user{name: "", uid: id, gid: noGroup}, true
}

// noGroup is the gid of an account that stands in no file.
const noGroup = 1<<32 - 1

func (a *accountFiles) byUID(id uint32) (user, bool) {
	users, _ := a.load()
	if i := slices.IndexFunc(users, func(u user) bool { return u.uid == id }); i >= 0 {
		return users[i], true
	}
	return user{}, false
}

// gid finds a group by name or number.
func (a *accountFiles) gid(name string) (uint32, bool) {
	_, groups := a.load()
	if i := slices.IndexFunc(groups, func(g group) bool { return g.name == name }); i >= 0 {
		return groups[i].gid, true
	}
	id, err := parseID(name)
	return id, err == nil
}

// Account resolves a user name or a number; Unknown if there is no such name.
func (h *Host) Account(name string) platform.Peer {
	u, ok := h.accounts.user(name)
	if !ok || u.uid == h.overflow {
		return platform.Unknown
	}
	return platform.UIDPeer(u.uid)
}

// UserName is the reverse of Account; empty if the uid has no name.
func (h *Host) UserName(p platform.Peer) string {
	id, ok := p.UID()
	if !ok {
		return ""
	}
	u, _ := h.accounts.byUID(id)
	return u.name
}

// Member reports whether p belongs to the group, by its primary group or by
// name. It knows what /etc says now, not what p's running processes carry.
func (h *Host) Member(p platform.Peer, name string) bool {
	id, ok := p.UID()
	if !ok {
		return false
	}
	gid, ok := h.accounts.gid(name)
	if !ok {
		return false
	}
	u, ok := h.accounts.byUID(id)
	if !ok {
		return false
	}
	if u.gid == gid {
		return true
	}
	_, groups := h.accounts.load()
	return slices.ContainsFunc(groups, func(g group) bool {
		return g.gid == gid && slices.Contains(g.members, u.name)
	})
}
