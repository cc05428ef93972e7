//go:build linux

package linux

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"postern/platform"
)

// policy is what one Access means here and now: whose it may be, and the one
// group, if any, that may read.
type policy struct {
	access platform.Access
	uid    uint32        // ours; root is always allowed as an owner
	gid    int64         // readers, -1 for none
	fixer  func() string // who should own things, "postern:himds", for chown
}

// policy resolves a; the group is looked up when it is needed for the first
// time, so that `install` and `status` work before it exists. The error wraps
// platform.ErrNoGroup.
func (h *Host) policy(a platform.Access) (policy, error) {
	p := policy{access: a, uid: uid(), gid: -1, fixer: h.owners}
	if a != platform.TokenReaders || h.group == "" {
		return p, nil
	}
	gid, err := h.readers()
	p.gid = gid
	return p, err
}

// owners names us for chown: "postern:himds", or numbers where names are missing.
func (h *Host) owners() string {
	name := h.UserName(h.Self())
	if name == "" {
		name = fmt.Sprint(uid())
	}
	if h.group != "" {
		name += ":" + h.group
	}
	return name
}

// readers is the gid of the readers' group.
func (h *Host) readers() (int64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gid >= 0 {
		return h.gid, nil
	}
	gid, ok := h.accounts.gid(h.group)
	if !ok {
		return -1, fmt.Errorf("group %s: %w; fix: groupadd --system %s", h.group, platform.ErrNoGroup, h.group)
	}
	h.gid = int64(gid)
	return h.gid, nil
}

// dirMode is the mode that a directory is born with, fileMode that of a file.
func (p policy) dirMode() uint32 { return p.mode(0o700, 0o050, 0o055) }

func (p policy) fileMode() uint32 { return p.mode(0o600, 0o040, 0o044) }

func (p policy) mode(private, readers, public uint32) uint32 {
	switch {
	case p.access == platform.Public:
		return private | public
	case p.gid >= 0:
		return private | readers
	}
	return private
}

// may is the most that a reader may have: read, and search in directories.
func may(dir bool) uint16 {
	if dir {
		return 5
	}
	return 4
}

// right is what one principal beyond the owner can do to an object.
type right struct {
	who   string // "group 943", "uid 1001", "everyone"
	group int64  // its gid, -1 if it is no group
	named bool   // by an ACL entry
	perm  uint16
}

// rights lists everyone beyond the owner with a say: from the ACL where there
// is one, since the mode's group bits are then only its mask.
func rights(st *unix.Stat_t, acl []aclEntry) []right {
	group, other := uint16(st.Mode>>3&7), uint16(st.Mode&7)
	mask := uint16(7)
	if i := slices.IndexFunc(acl, func(e aclEntry) bool { return e.tag == aclMask }); i >= 0 {
		mask = acl[i].perm
	}
	var list []right
	for _, e := range acl {
		switch e.tag {
		case aclGroupObj:
			group = e.perm & mask
		case aclOther:
			other = e.perm
		case aclUser:
			list = append(list, right{fmt.Sprintf("uid %d", e.id), -1, true, e.perm & mask})
		case aclGroup:
			list = append(list, right{fmt.Sprintf("group %d", e.id), int64(e.id), true, e.perm & mask})
		}
	}
	return append(list,
		right{fmt.Sprintf("group %d", st.Gid), int64(st.Gid), false, group},
		right{"everyone", -1, false, other})
}

// allows says whether the policy knows r. A named entry without rights is not
// known: a change of the mask would bring it to life.
func (p policy) allows(r right, dir bool) bool {
	switch {
	case p.access == platform.Public:
		return r.perm&2 == 0 // nobody else writes; who reads does not matter
	case p.gid >= 0 && r.group == p.gid:
		return r.perm&^may(dir) == 0
	}
	return r.perm == 0 && !r.named
}

// findings collect what is wrong with one object.
type findings struct {
	problems, readers, fixes []string
}

func (f *findings) add(problem string, fixes ...string) {
	f.problems = append(f.problems, problem)
	for _, fix := range fixes {
		if !slices.Contains(f.fixes, fix) {
			f.fixes = append(f.fixes, fix)
		}
	}
}

// judge compares n with the policy; nil means that it fits. acl is the access
// ACL of n, def the default ACL if n is a directory.
func (p policy) judge(n *node, acl, def []aclEntry) error {
	var f findings
	dir := n.st.Mode&unix.S_IFMT == unix.S_IFDIR
	chmod := fmt.Sprintf("chmod %04o %s", p.fileMode(), n.path)
	if dir {
		chmod = fmt.Sprintf("chmod %04o %s", p.dirMode(), n.path)
	}
	if n.st.Uid != 0 && n.st.Uid != p.uid {
		f.add(fmt.Sprintf("owner is uid %d, want %s", n.st.Uid, p.wanted()), p.chown(dir)+" "+n.path)
		f.readers = append(f.readers, fmt.Sprintf("uid %d", n.st.Uid))
	}
	if !dir && n.st.Nlink != 1 {
		f.add(fmt.Sprintf("has %d links, want 1", n.st.Nlink))
	}
	served := p.gid < 0
	for _, r := range rights(&n.st, acl) {
		served = served || r.group == p.gid && r.perm&may(dir) == may(dir)
		if p.allows(r, dir) {
			continue
		}
		if r.perm&4 != 0 {
			f.readers = append(f.readers, r.who)
		}
		if r.named {
			f.add(fmt.Sprintf("acl gives %s %q", r.who, rwx(r.perm)), "setfacl -b "+n.path)
		} else {
			f.add(fmt.Sprintf("mode %04o gives %s %q", n.st.Mode&0o7777, r.who, rwx(r.perm)), chmod)
		}
	}
	if len(def) > 0 && p.access != platform.Public {
		f.add("has a default acl, which files made inside inherit", "setfacl -k "+n.path)
	}
	if !served {
		f.add(fmt.Sprintf("group %d cannot read it, mode %04o, group is %d", p.gid, n.st.Mode&0o7777, n.st.Gid),
			fmt.Sprintf("chgrp %d %s", p.gid, n.path), chmod)
	}
	if len(f.problems) == 0 {
		return nil
	}
	return &platform.AccessError{
		Path:    n.path,
		Want:    p.access,
		Problem: strings.Join(f.problems, "; "),
		Readers: strings.Join(f.readers, ", "),
		Fix:     strings.Join(f.fixes, " && "),
	}
}

func (p policy) chown(dir bool) string {
	flag := ""
	if dir {
		flag = "-R "
	}
	return "chown " + flag + p.fixer()
}

func (p policy) wanted() string {
	if p.uid == 0 {
		return "root"
	}
	return fmt.Sprintf("%d", p.uid)
}

func rwx(perm uint16) string {
	s := []byte("rwx")
	for i := range s {
		if perm&(4>>i) == 0 {
			s[i] = '-'
		}
	}
	return string(s)
}

// verify reads what judge needs and calls it. Anything but a regular file or a
// directory is refused by its type.
func (h *Host) verify(n *node, a platform.Access) error {
	refuse := func(problem string) error {
		return &platform.AccessError{Path: n.path, Want: a, Problem: problem}
	}
	switch n.st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR:
	default:
		return refuse("is a " + kind(n.st.Mode))
	}
	p, err := h.policy(a)
	if err != nil {
		return err
	}
	acl, err := h.readACL(n, aclAccess)
	if err != nil {
		return refuse(err.Error())
	}
	var def []aclEntry
	if n.st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if def, err = h.readACL(n, aclDefault); err != nil {
			return refuse(err.Error())
		}
	}
	return p.judge(n, acl, def)
}
