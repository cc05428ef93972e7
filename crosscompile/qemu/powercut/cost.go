package powercut

import (
	"cmp"
	"slices"
)

// Cost is what one kind of mark cost the device.
type Cost struct {
	What            string
	Times           int
	Median, Most    int64 // bytes submitted to the block layer
	Mean            int64
	Writes, Flushes float64 // requests, mean
	Said            int64   // mean of what the store counts itself
}

// Costs adds up what the log has between one mark and the next, the mark
// itself left out, by what the second one acknowledges. A renewal is the sum
// of Pending and Renewed.
func (l *Log) Costs(marks []Logged) []Cost {
	type share struct{ bytes, writes, flushes, said int64 }
	by := map[string][]share{}
	for i := 1; i < len(marks); i++ {
		s := share{said: marks[i].Bytes - marks[i-1].Bytes}
		for _, e := range l.Entries[marks[i-1].Entry+1 : marks[i].Entry] {
			if e.IsWrite() {
				s.bytes += e.Length
				s.writes++
			}
			if e.Flags&Flush != 0 {
				s.flushes++
			}
		}
		by[marks[i].What] = append(by[marks[i].What], s)
	}
	var all []Cost
	for what, list := range by {
		slices.SortFunc(list, func(a, b share) int { return cmp.Compare(a.bytes, b.bytes) })
		n := int64(len(list))
		var sum share
		for _, s := range list {
			sum.bytes, sum.writes, sum.flushes, sum.said = sum.bytes+s.bytes, sum.writes+s.writes, sum.flushes+s.flushes, sum.said+s.said
		}
		all = append(all, Cost{
			What: what, Times: len(list), Median: list[n/2].bytes, Most: list[n-1].bytes, Mean: sum.bytes / n,
			Writes: float64(sum.writes) / float64(n), Flushes: float64(sum.flushes) / float64(n), Said: sum.said / n,
		})
	}
	slices.SortFunc(all, func(a, b Cost) int { return cmp.Compare(a.What, b.What) })
	return all
}
