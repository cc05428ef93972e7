//go:build linux

package linux

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"postern/platform"
)

// TestNoCombinationLetsAStrangerIn draws owners, modes and lists and compares
// the verdict with what the kernel's own rule (acl(5), "access check
// algorithm") would let a stranger and a reader do.
func TestNoCombinationLetsAStrangerIn(t *testing.T) {
	const us, readers, stranger, foreignGroup = 942, 943, 1001, 1002
	rapid.Check(t, func(t *rapid.T) {
		dir := rapid.Bool().Draw(t, "dir")
		n := &node{path: "/x", st: unix.Stat_t{
			Uid:   rapid.SampledFrom([]uint32{0, us, stranger}).Draw(t, "uid"),
			Gid:   rapid.SampledFrom([]uint32{0, readers, foreignGroup}).Draw(t, "gid"),
			Mode:  uint32(rapid.IntRange(0, 0o777).Draw(t, "mode")),
			Nlink: 1,
		}}
		n.st.Mode |= unix.S_IFREG
		if dir {
			n.st.Mode = n.st.Mode&0o777 | unix.S_IFDIR
		}
		var acl []aclEntry
		if rapid.Bool().Draw(t, "acl") {
			perm := func(name string) uint16 { return uint16(rapid.IntRange(0, 7).Draw(t, name)) }
			acl = []aclEntry{{aclUserObj, 7, noID}, {aclGroupObj, perm("group"), noID}, {aclMask, perm("mask"), noID}, {aclOther, perm("other"), noID}}
			for _, name := range rapid.SliceOfN(rapid.SampledFrom([]string{"stranger", "readers", "foreign"}), 0, 3).Draw(t, "named") {
				e := map[string]aclEntry{"stranger": {aclUser, 0, stranger}, "readers": {aclGroup, 0, readers}, "foreign": {aclGroup, 0, foreignGroup}}[name]
				e.perm = perm(name)
				acl = append(acl, e)
			}
		}
		reader := kernelAllows(&n.st, acl, 5555, readers)
		other := kernelAllows(&n.st, acl, stranger, foreignGroup)
		for _, a := range []platform.Access{platform.Private, platform.TokenReaders, platform.Public} {
			p := policy{access: a, uid: us, gid: -1, fixer: func() string { return "us" }}
			if a == platform.TokenReaders {
				p.gid = readers
			}
			if p.judge(n, acl, nil) != nil {
				continue
			}
			switch {
			case a == platform.Private && (reader|other) != 0:
				t.Fatalf("private, but readers may %q and strangers %q", rwx(reader), rwx(other))
			case a == platform.TokenReaders && (other != 0 || reader != may(dir)):
				t.Fatalf("token readers, but readers may %q and strangers %q", rwx(reader), rwx(other))
			case a == platform.Public && (reader|other)&2 != 0:
				t.Fatalf("public, but readers may %q and strangers %q", rwx(reader), rwx(other))
			case n.st.Uid == stranger:
				t.Fatal("owned by a stranger")
			}
		}
	})
}

// kernelAllows is the algorithm of acl(5) for one user in one group.
func kernelAllows(st *unix.Stat_t, acl []aclEntry, uid, gid uint32) uint16 {
	if st.Uid == uid {
		return 7 // an owner can give himself what he lacks
	}
	if acl == nil {
		if st.Gid == gid {
			return uint16(st.Mode >> 3 & 7)
		}
		return uint16(st.Mode & 7)
	}
	mask, other := uint16(7), uint16(0)
	for _, e := range acl {
		switch e.tag {
		case aclMask:
			mask = e.perm
		case aclOther:
			other = e.perm
		}
	}
	for _, e := range acl {
		if e.tag == aclUser && e.id == uid {
			return e.perm & mask
		}
	}
	var granted uint16
	matched := false
	for _, e := range acl {
		if e.tag == aclGroupObj && st.Gid == gid || e.tag == aclGroup && e.id == gid {
			granted |= e.perm & mask
			matched = true
		}
	}
	if matched {
		return granted
	}
	return other
}

func TestMissingGroupIsNamedWithItsCure(t *testing.T) {
	h := testHost(t)
	h.group = "no-such-group-here"
	err := h.Secure(h.dirs.State, platform.TokenReaders)
	if !errors.Is(err, platform.ErrNoGroup) || !strings.Contains(err.Error(), "groupadd --system no-such-group-here") {
		t.Errorf("got %v", err)
	}
	if err := h.Secure(h.dirs.State, platform.Private); err != nil {
		t.Errorf("a private directory does not need the group: %v", err)
	}
}

func TestWithoutAGroupTokenReadersIsPrivate(t *testing.T) {
	h := testHost(t)
	h.group = ""
	dir := h.dirs.State
	if err := h.Secure(dir, platform.TokenReaders); err != nil {
		t.Fatal(err)
	}
	if err := h.Check(dir, platform.Private); err != nil {
		t.Error(err)
	}
	d, err := h.OpenDir(dir, platform.TokenReaders)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close() //nolint:errcheck // a test's directory
	if err := d.Create("a.key", nil); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir+"/a.key", &st); err != nil || st.Mode&0o777 != 0o400 {
		t.Errorf("challenge file has mode %04o, %v, want 0400", st.Mode&0o777, err)
	}
}
