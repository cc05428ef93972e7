package powercut

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

// memory is a disk.
type memory []byte

func (m memory) WriteAt(p []byte, at int64) (int, error) { return copy(m[at:], p), nil }

// after is a small disk after the cut, a letter a sector.
func after(t *testing.T, l *Log, c Cut) string {
	t.Helper()
	disk := memory(bytes.Repeat([]byte{'.'}, 16*512))
	if err := l.Replay(disk, c); err != nil {
		t.Fatal(err)
	}
	var letters []byte
	for at := 0; at < len(disk); at += 512 {
		if !bytes.Equal(disk[at:at+512], bytes.Repeat(disk[at:at+1], 512)) {
			t.Fatalf("sector %d is torn below its size", at/512)
		}
		letters = append(letters, disk[at])
	}
	return string(letters)
}

func sample(t *testing.T) *Log {
	return read(t, write(512,
		step{at: 0, data: fill('a', 2)}, step{at: 2, data: fill('b', 2)}, step{flags: Flush},
		step{at: 4, data: fill('c', 4)}, step{at: 8, data: fill('d', 1), flags: FUA}, step{at: 9, data: fill('e', 1)}, step{at: 0, data: fill('f', 1)}))
}

func outcomes(t *testing.T, l *Log, c Cut) []string {
	t.Helper()
	var all []string
	for c.Seed = range 200 {
		if s := after(t, l, c); !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	slices.Sort(all)
	return all
}

func TestCutKeepsWhatWasFlushedAndAnyOfTheRest(t *testing.T) {
	l := sample(t)
	for _, c := range []struct {
		cut  Cut
		want []string
	}{
		{Cut{Point: 0}, []string{"................"}},
		{Cut{Point: 1}, []string{"................", "aa.............."}},
		{Cut{Point: 2}, []string{"................", "..bb............", "aa..............", "aabb............"}},
		{Cut{Point: 3}, []string{"aabb............"}},
		{Cut{Point: 5}, []string{"aabb....d.......", "aabbccccd......."}},
		{Cut{Point: 7}, []string{
			"aabb....d.......", "aabb....de......", "aabbccccd.......", "aabbccccde......",
			"fabb....d.......", "fabb....de......", "fabbccccd.......", "fabbccccde......",
		}},
	} {
		if got := outcomes(t, l, c.cut); !slices.Equal(got, c.want) {
			t.Errorf("point %d leaves %q, want %q", c.cut.Point, got, c.want)
		}
	}
}

func TestTornCutKeepsAnySectorsOfAWrite(t *testing.T) {
	got := outcomes(t, sample(t), Cut{Point: 4, Torn: true})
	if len(got) != 16 || !slices.Contains(got, "aabbc.cc........") {
		t.Errorf("a torn write of 4 sectors leaves %d different disks, want 16: %q", len(got), got)
	}
}

func TestTornCutKeepsTheSuperblockWhole(t *testing.T) {
	l := read(t, write(512, step{at: FSStart / 512, data: fill('a', 8)}))
	split := 0
	for seed := range uint64(100) {
		kept := l.Kept(Cut{Point: 1, Seed: seed, Torn: true})
		for _, e := range kept {
			if e.At == FSStart+1024 && e.Length != 1024 || e.At == FSStart+1536 {
				t.Fatalf("seed %d tears the superblock: %+v", seed, kept)
			}
		}
		if len(kept) > 0 && len(kept) < 7 {
			split++
		}
	}
	if split == 0 {
		t.Error("nothing is torn")
	}
}

func TestDeafDiskLosesWhatWasFlushed(t *testing.T) {
	got := outcomes(t, sample(t), Cut{Point: 3, Deaf: 1})
	if want := []string{"aa..............", "aabb............"}; !slices.Equal(got, want) {
		t.Errorf("a disk that ignores a flush leaves %q, want %q", got, want)
	}
	if got := outcomes(t, sample(t), Cut{Point: 7, Deaf: 100}); len(got) < 30 {
		t.Errorf("with all at stake only %d different disks", len(got))
	}
}

func TestFlushThatCarriesDataSpeaksOfWhatCameBefore(t *testing.T) {
	l := read(t, write(512, step{at: 0, data: fill('a', 1)}, step{at: 1, data: fill('b', 1), flags: Flush}))
	if got, want := outcomes(t, l, Cut{Point: 2}), []string{"a...............", "ab.............."}; !slices.Equal(got, want) {
		t.Errorf("leaves %q, want %q", got, want)
	}
}

func TestCutIsTheSameForTheSameSeed(t *testing.T) {
	l := sample(t)
	for seed := range uint64(50) {
		c := Cut{Point: 7, Seed: seed, Torn: seed%2 == 0}
		if a, b := after(t, l, c), after(t, l, c); a != b {
			t.Fatalf("seed %d leaves %q and %q", seed, a, b)
		}
	}
	if err := l.Replay(memory{}, Cut{Point: 8}); !errors.Is(err, ErrLog) {
		t.Errorf("a point behind the log: %v, want ErrLog", err)
	}
}
