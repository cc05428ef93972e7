package powercut

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"slices"
	"testing"
)

// step is one request of a log made by hand. Positions are in sectors.
type step struct {
	at    int64
	data  []byte
	flags uint64
}

// write makes a log in QEMU's form.
func write(sector int, steps ...step) []byte {
	size := int64(sector)
	super := make([]byte, sector)
	le := binary.LittleEndian
	le.PutUint64(super, logMagic)
	le.PutUint64(super[8:], logVersion)
	le.PutUint64(super[16:], uint64(len(steps)))
	le.PutUint32(super[24:], uint32(sector))
	out := super
	for _, s := range steps {
		head := make([]byte, sector)
		le.PutUint64(head, uint64(s.at))
		le.PutUint64(head[8:], uint64(int64(len(s.data))/size))
		le.PutUint64(head[16:], s.flags)
		out = append(out, head...)
		if s.flags&Discard == 0 {
			out = append(out, s.data...)
		}
	}
	return out
}

func fill(b byte, sectors int) []byte { return bytes.Repeat([]byte{b}, 512*sectors) }

func read(t *testing.T, log []byte) *Log {
	t.Helper()
	l, err := ReadLog(bytes.NewReader(log), int64(len(log)))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLogIsReadAsItWasWritten(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		data := bytes.Repeat([]byte{7}, 2*sector)
		l := read(t, write(sector, step{at: 3, data: data}, step{flags: Flush}, step{at: 9, data: data, flags: Discard}, step{at: 1, data: data[:sector], flags: FUA}))
		s := int64(sector)
		want := []Entry{
			{At: 3 * s, Length: 2 * s, Data: 2 * s},
			{Data: 5 * s, Flags: Flush},
			{At: 9 * s, Length: 2 * s, Data: 6 * s, Flags: Discard},
			{At: s, Length: s, Data: 7 * s, Flags: FUA},
		}
		if !reflect.DeepEqual(l.Entries, want) {
			t.Errorf("sectors of %d: read %+v, want %+v", sector, l.Entries, want)
		}
		if got, err := l.Read(l.Entries[0]); err != nil || !bytes.Equal(got, data) {
			t.Errorf("sectors of %d: data %d bytes, %v", sector, len(got), err)
		}
		writes := slices.DeleteFunc(slices.Clone(l.Entries), func(e Entry) bool { return !e.IsWrite() })
		if len(writes) != 2 {
			t.Errorf("sectors of %d: %d writes, want 2", sector, len(writes))
		}
	}
}

func TestLogThatDoesNotFitIsRefused(t *testing.T) {
	good := write(512, step{at: 1, data: fill(1, 4)}, step{flags: Flush})
	change := func(at int, v byte) []byte {
		b := slices.Clone(good)
		b[at] = v
		return b
	}
	for name, bad := range map[string][]byte{
		"empty":                         nil,
		"another magic":                 change(0, 0),
		"another version":               change(8, 9),
		"more entries than there are":   change(16, 3),
		"entries beyond all reason":     change(23, 1),
		"sectors of 513 bytes":          change(24, 1),
		"sectors of no bytes":           change(25, 0),
		"data cut short":                good[:len(good)-600],
		"head cut short":                good[:700],
		"an entry longer than the file": change(512+9, 1),
		"an entry beyond all disks":     change(512+15, 0x80),
		"a position beyond all disks":   change(512+7, 0x80),
	} {
		if l, err := ReadLog(bytes.NewReader(bad), int64(len(bad))); !errors.Is(err, ErrLog) {
			t.Errorf("%s: %v, %v; want ErrLog", name, l, err)
		}
	}
}

func FuzzReadLog(f *testing.F) {
	f.Add(write(512, step{at: 1, data: fill(1, 4)}, step{flags: Flush}, step{at: 2, data: fill(2, 1), flags: FUA | Discard}))
	f.Add(write(4096, step{flags: Flush}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, log []byte) {
		l, err := ReadLog(bytes.NewReader(log), int64(len(log)))
		if err != nil {
			return
		}
		for i, e := range l.Entries {
			if e.At < 0 || e.Length < 0 || e.Data < 0 || e.IsWrite() && e.Data+e.Length > int64(len(log)) {
				t.Fatalf("entry %d is %+v in a log of %d bytes", i, e, len(log))
			}
		}
		for point := range len(l.Entries) + 1 {
			kept := int64(0)
			for _, e := range l.Kept(Cut{Point: point, Seed: 1, Torn: point%2 == 0}) {
				if kept += e.Length; kept > 1<<20 {
					return
				}
				if _, err := l.Read(e); err != nil {
					t.Fatalf("point %d keeps what cannot be read: %v", point, err)
				}
			}
		}
		if _, err := l.Marks(); err != nil && !errors.Is(err, ErrLog) && !errors.Is(err, ErrNoMark) {
			t.Fatal(err)
		}
	})
}
