//go:build linux

package linux

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// The two attributes that hold POSIX ACLs, and their layout: a version and
// entries of tag, permission and id, all little endian (acl(5),
// linux/posix_acl_xattr.h).
const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default" // directories: what is made inside inherits it

	aclVersion   = 2
	aclHeaderLen = 4
	aclEntryLen  = 8
	aclMaxLen    = 64 << 10 // the kernel's own limit for a value
)

// Tags of entries.
const (
	aclUserObj  = 0x01 // the owner
	aclUser     = 0x02
	aclGroupObj = 0x04 // the owning group
	aclGroup    = 0x08
	aclMask     = 0x10 // limits all but owner and others
	aclOther    = 0x20
)

// aclEntry is one line of an ACL. id counts for aclUser and aclGroup only.
type aclEntry struct {
	tag  uint16
	perm uint16 // rwx as 4, 2, 1
	id   uint32
}

var errACL = errors.New("acl is malformed")

// parseACL decodes the value of one of the attributes. An ACL that breaks a
// rule of acl(5) is an error: a check that does not understand must refuse.
func parseACL(value []byte) ([]aclEntry, error) {
	if len(value) < aclHeaderLen || (len(value)-aclHeaderLen)%aclEntryLen != 0 {
		return nil, fmt.Errorf("%w: %d bytes", errACL, len(value))
	}
	if v := binary.LittleEndian.Uint32(value); v != aclVersion {
		return nil, fmt.Errorf("%w: version %d", errACL, v)
	}
	var entries []aclEntry
	count := map[uint16]int{}
	for b := value[aclHeaderLen:]; len(b) > 0; b = b[aclEntryLen:] {
		e := aclEntry{
			tag:  binary.LittleEndian.Uint16(b),
			perm: binary.LittleEndian.Uint16(b[2:]),
			id:   binary.LittleEndian.Uint32(b[4:]),
		}
		if e.perm > 7 {
			return nil, fmt.Errorf("%w: permission %#x", errACL, e.perm)
		}
		switch e.tag {
		case aclUserObj, aclUser, aclGroupObj, aclGroup, aclMask, aclOther:
		default:
			return nil, fmt.Errorf("%w: tag %#x", errACL, e.tag)
		}
		count[e.tag]++
		entries = append(entries, e)
	}
	if len(entries) == 0 {
		return nil, nil // an empty default ACL is none
	}
	named := count[aclUser] + count[aclGroup]
	if count[aclUserObj] != 1 || count[aclGroupObj] != 1 || count[aclOther] != 1 ||
		count[aclMask] > 1 || named > 0 && count[aclMask] == 0 {
		return nil, fmt.Errorf("%w: owner, group, mask or others missing or doubled", errACL)
	}
	return entries, nil
}

// readACL reads one ACL of n; nil without an error if it has none. fgetxattr
// does not take an O_PATH descriptor, so such a one is named through /proc;
// where /proc is not mounted the ACL cannot be known, which is an error.
func (h *Host) readACL(n *node, attr string) ([]aclEntry, error) {
	value, err := growing(func(b []byte) (int, error) { return unix.Fgetxattr(n.fd, attr, b) })
	if errors.Is(err, unix.EBADF) {
		name := fmt.Sprintf("/proc/self/fd/%d", n.fd)
		value, err = growing(func(b []byte) (int, error) { return unix.Getxattr(name, attr, b) })
	}
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.EOPNOTSUPP):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("%s: read acl: %w", n.path, err)
	}
	entries, err := parseACL(value)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.path, err)
	}
	return entries, nil
}

// growing calls read with a larger buffer until the value fits.
func growing(read func([]byte) (int, error)) ([]byte, error) {
	for size := 512; ; size *= 4 {
		b := make([]byte, size)
		n, err := read(b)
		if err == nil {
			return b[:n], nil
		}
		if !errors.Is(err, unix.ERANGE) || size >= aclMaxLen {
			return nil, err
		}
	}
}
