package powercut

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func someMark(seq uint64) Mark {
	return Mark{Seq: seq, What: Refreshed, Next: Connected, Identity: Empty, Cache: strings.Repeat("c", 24), Serial: 101, Round: 7, Bytes: 1 << 40}
}

func TestMarkIsReadBackAndATornOneIsNot(t *testing.T) {
	m := someMark(1 << 60)
	slot, err := m.Encode()
	if err != nil || len(slot) != MarkSlot {
		t.Fatalf("%d bytes, %v", len(slot), err)
	}
	if got, err := DecodeMark(slot); err != nil || got != m {
		t.Fatalf("read %+v, %v", got, err)
	}
	for at, b := range slot {
		if b == 0 {
			break
		}
		torn := bytes.Clone(slot)
		torn[at] ^= 1
		if _, err := DecodeMark(torn); !errors.Is(err, ErrNoMark) {
			t.Fatalf("byte %d changed: %v, want ErrNoMark", at, err)
		}
	}
	m.What = strings.Repeat("x", MarkSlot)
	if _, err := m.Encode(); err == nil {
		t.Error("a mark that is too long was taken")
	}
}

func TestNewestMarkIsFoundWhereverItStands(t *testing.T) {
	disk := make([]byte, MarkStart/64+MarkSlots*MarkSlot) // the partition begins somewhere
	const start = MarkStart / 64
	if _, err := LastMark(bytes.NewReader(disk), start); !errors.Is(err, ErrNoMark) {
		t.Fatalf("empty: %v, want ErrNoMark", err)
	}
	for _, seq := range []uint64{0, 1, MarkSlots - 1, MarkSlots, MarkSlots + 5} {
		m := someMark(seq)
		slot, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		copy(disk[start+m.Offset():], slot)
		if got, err := LastMark(bytes.NewReader(disk), start); err != nil || got.Seq != seq {
			t.Fatalf("newest is %d, %v; want %d", got.Seq, err, seq)
		}
	}
	if _, err := LastMark(bytes.NewReader(disk), start+MarkSlot); err == nil {
		t.Error("a partition cut short was taken")
	}
}

func markStep(t *testing.T, seq uint64, what string, bytes int64) step {
	t.Helper()
	m := someMark(seq)
	m.What, m.Bytes = what, bytes
	slot, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return step{at: (MarkStart + m.Offset()) / 512, data: slot}
}

func TestLogSaysWhatWasPromisedWhenAndWhatItCost(t *testing.T) {
	l := read(t, write(512,
		step{at: 1, data: fill(1, 1)}, markStep(t, 4, Opened, 100),
		step{at: 1, data: fill(1, 8)}, step{flags: Flush}, step{at: 3, data: fill(1, 2)}, markStep(t, 5, Refreshed, 900),
		step{at: 1, data: fill(1, 2)}, step{flags: Flush}, step{flags: Flush}, markStep(t, 6, Refreshed, 1000)))
	marks, err := l.Marks()
	if err != nil || len(marks) != 3 || marks[0].Entry != 1 || marks[2].Entry != 9 || marks[2].Seq != 6 {
		t.Fatalf("marks %+v, %v", marks, err)
	}
	costs := l.Costs(marks)
	want := Cost{What: Refreshed, Times: 2, Median: 10 * 512, Most: 10 * 512, Mean: 6 * 512, Writes: 1.5, Flushes: 1.5, Said: 450}
	if len(costs) != 1 || costs[0] != want {
		t.Fatalf("costs %+v, want %+v", costs, want)
	}
}

func TestMarksOutOfOrderAreNoRecording(t *testing.T) {
	l := read(t, write(512, markStep(t, 4, Opened, 0), markStep(t, 6, Refreshed, 0)))
	if _, err := l.Marks(); !errors.Is(err, ErrLog) {
		t.Errorf("a mark is missing: %v, want ErrLog", err)
	}
	l = read(t, write(512, step{at: MarkStart / 512, data: fill(1, 1)}))
	if _, err := l.Marks(); !errors.Is(err, ErrNoMark) {
		t.Errorf("something else stands there: %v, want ErrNoMark", err)
	}
}

func FuzzDecodeMark(f *testing.F) {
	slot, err := someMark(3).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(slot)
	f.Add([]byte(markWord))
	f.Fuzz(func(t *testing.T, slot []byte) {
		m, err := DecodeMark(slot)
		if err != nil {
			if !errors.Is(err, ErrNoMark) {
				t.Fatal(err)
			}
			return
		}
		if again, err := m.Encode(); err == nil {
			if got, err := DecodeMark(again); err != nil || got != m {
				t.Fatalf("%+v became %+v, %v", m, got, err)
			}
		}
	})
}
