//go:build linux

package linux

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"postern/platform"
)

// encodeACL is the reverse of parseACL.
func encodeACL(entries ...aclEntry) []byte {
	b := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

const noID = 1<<32 - 1

var minimal = []aclEntry{{aclUserObj, 7, noID}, {aclGroupObj, 0, noID}, {aclOther, 0, noID}}

func TestACLIsReadAsItStands(t *testing.T) {
	want := slices.Insert(slices.Clone(minimal), 1, aclEntry{aclUser, 4, 1001})
	want = append(want, aclEntry{aclMask, 4, noID})
	got, err := parseACL(encodeACL(want...))
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if got, err := parseACL(encodeACL()); got != nil || err != nil {
		t.Errorf("an empty list is %v, %v", got, err)
	}
}

func TestACLThatIsNotUnderstoodIsRefused(t *testing.T) {
	newer := encodeACL(minimal...)
	newer[0] = 3
	for name, value := range map[string][]byte{
		"nothing":          {},
		"half a header":    {2, 0},
		"another version":  newer,
		"half an entry":    encodeACL(minimal...)[:14],
		"no owner":         encodeACL(minimal[1:]...),
		"two owners":       encodeACL(append(slices.Clone(minimal), minimal[0])...),
		"unknown tag":      encodeACL(append(slices.Clone(minimal), aclEntry{0x40, 0, noID})...),
		"unknown right":    encodeACL(aclEntry{aclUserObj, 8, noID}, minimal[1], minimal[2]),
		"name but no mask": encodeACL(append(slices.Clone(minimal), aclEntry{aclUser, 4, 1})...),
		"two masks":        encodeACL(append(slices.Clone(minimal), aclEntry{aclMask, 4, noID}, aclEntry{aclMask, 7, noID})...),
	} {
		if _, err := parseACL(value); !errors.Is(err, errACL) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func FuzzACL(f *testing.F) {
	f.Add(encodeACL(minimal...))
	f.Add(encodeACL(aclEntry{aclUserObj, 6, noID}, aclEntry{aclUser, 4, 1001}, aclEntry{aclGroupObj, 0, noID}, aclEntry{aclMask, 4, noID}, aclEntry{aclOther, 0, noID}))
	f.Add([]byte{2, 0, 0, 0})
	f.Fuzz(func(t *testing.T, value []byte) {
		entries, err := parseACL(value)
		if err != nil {
			return
		}
		st := unix.Stat_t{Mode: unix.S_IFREG | 0o640, Uid: 942, Gid: 0, Nlink: 1}
		n := &node{path: "/key", st: st}
		p := policy{access: platform.Private, uid: 942, gid: -1, fixer: func() string { return "us" }}
		if p.judge(n, entries, nil) != nil {
			return
		}
		for _, e := range entries { // accepted as private: then nobody beyond the owner may read
			named := e.tag == aclUser || e.tag == aclGroup
			if named || e.tag == aclOther && e.perm != 0 {
				t.Errorf("%v was accepted as private", entries)
			}
		}
		if entries == nil {
			t.Error("mode 0640 without a list was accepted as private")
		}
	})
}
