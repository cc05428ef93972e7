package powercut

import (
	"fmt"
	"io"
	"math/rand/v2"
)

// Cut says where the power goes and what a disk without power keeps of the
// writes that were not flushed.
type Cut struct {
	Point int    // entries that the disk had been sent
	Seed  uint64 // chooses what is kept
	Torn  bool   // each kept write is torn: every sector of 512 bytes is kept or not
	// Deaf makes a disk that says yes to a flush and does nothing: the last so
	// many writes are at stake whatever was flushed. 0 is an honest disk.
	Deaf int
}

const tornSector = 512

// Kept returns what of the log is on the disk after the cut, in the order in
// which it was written: all writes up to the last flush before the point,
// those that were forced through (FUA), and a random half of the others.
func (l *Log) Kept(c Cut) []Entry {
	chance := rand.New(rand.NewPCG(c.Seed, uint64(c.Point)))
	safe := l.safe(c)
	var kept []Entry
	for i, e := range l.Entries[:c.Point] {
		switch {
		case !e.IsWrite():
		case i <= safe || c.Deaf == 0 && e.Flags&FUA != 0:
			kept = append(kept, e)
		case c.Torn:
			kept = append(kept, tear(e, chance)...)
		case chance.IntN(2) == 0:
			kept = append(kept, e)
		}
	}
	return kept
}

// safe is the last entry that everything up to it is surely on the disk.
func (l *Log) safe(c Cut) int {
	writes := 0
	for i := c.Point - 1; i >= 0; i-- {
		e := l.Entries[i]
		if c.Deaf == 0 && e.Flags&Flush != 0 {
			// A flush that carries data speaks of what came before it.
			if e.IsWrite() {
				return i - 1
			}
			return i
		}
		if e.IsWrite() {
			writes++
		}
		if c.Deaf > 0 && writes > c.Deaf {
			return i
		}
	}
	return -1
}

// tear keeps a random half of a write's sectors. The superblock of ext4 stays
// whole: one checksum covers its two sectors and is looked at before the journal
// replays, so torn there no ext4 can be mounted, whatever was written into it
// (seen at one of 1,000 points).
func tear(e Entry, chance *rand.Rand) (parts []Entry) {
	const super, behind = FSStart + 1024, FSStart + 2048
	for at, n := int64(0), int64(0); at < e.Length; at += n {
		n = min(tornSector, e.Length-at)
		if e.At+at == super && e.Length-at >= behind-super {
			n = behind - super
		}
		if chance.IntN(2) == 0 {
			parts = append(parts, Entry{At: e.At + at, Data: e.Data + at, Length: n, Flags: e.Flags})
		}
	}
	return parts
}

// Replay writes what a disk keeps after the cut over a copy of the base image.
func (l *Log) Replay(disk io.WriterAt, c Cut) error {
	if c.Point < 0 || c.Point > len(l.Entries) {
		return fmt.Errorf("point %d of %d entries: %w", c.Point, len(l.Entries), ErrLog)
	}
	for _, e := range l.Kept(c) {
		content, err := l.Read(e)
		if err != nil {
			return err
		}
		if _, err := disk.WriteAt(content, e.At); err != nil {
			return err
		}
	}
	return nil
}
