package audit

import (
	"fmt"
	"time"
)

// maxBreaks bounds what a Chain remembers of a file that is broken throughout.
const maxBreaks = 20

// Chain walks records in the order of their numbers and says what follows from
// their digests. The zero value is ready; not safe for concurrent use.
type Chain struct {
	proof Proof
	next  uint64
	prev  digest
}

// Proof is what a walk found.
type Proof struct {
	Records     int       `json:"records"`
	First       uint64    `json:"first"` // number of the oldest record; the ring forgets older ones
	Last        uint64    `json:"last"`
	From        time.Time `json:"from,omitzero"` // time of First, as its clock said
	To          time.Time `json:"to,omitzero"`
	Head        string    `json:"head,omitempty"` // digest of the newest record
	Breaks      []Break   `json:"breaks,omitempty"`
	BreaksTotal int       `json:"breaks_total"`
}

// Break is a place at which the chain does not hold.
type Break struct {
	Seq     uint64 `json:"seq"`     // of the record that does not fit; 0 if it has none
	Problem string `json:"problem"` // "record 7 is missing"
}

// Add takes the next line, without a newline. It goes on after a break.
func (c *Chain) Add(line []byte) {
	c.proof.Records++
	r, err := decode(line)
	sum := digestOf(line)
	if err != nil {
		c.broken(0, err.Error())
		c.prev = sum
		c.next++
		return
	}
	switch {
	case c.proof.First == 0:
		c.proof.First, c.proof.From = r.Seq, r.Time
		if r.Seq == 1 && digest(r.Prev) != genesis {
			c.broken(r.Seq, "record 1 names a record before it")
		}
	case r.Seq > c.next:
		c.broken(r.Seq, fmt.Sprintf("records %d to %d are missing", c.next, r.Seq-1))
	case r.Seq < c.next:
		c.broken(r.Seq, fmt.Sprintf("record %d stands where %d belongs", r.Seq, c.next))
	case digest(r.Prev) != c.prev:
		c.broken(r.Seq, fmt.Sprintf("record %d was changed, or record %d was", r.Seq-1, r.Seq))
	}
	c.proof.Last, c.proof.To, c.proof.Head = r.Seq, r.Time, string(sum)
	c.next, c.prev = r.Seq+1, sum
}

func (c *Chain) broken(seq uint64, problem string) {
	c.proof.BreaksTotal++
	if len(c.proof.Breaks) < maxBreaks {
		c.proof.Breaks = append(c.proof.Breaks, Break{Seq: seq, Problem: problem})
	}
}

// Proof returns what was found so far.
func (c *Chain) Proof() Proof { return c.proof }

// Whole reports whether every record follows the one before it.
func (p Proof) Whole() bool { return p.BreaksTotal == 0 }

// Says is the proof in words, with its limits.
func (p Proof) Says() string {
	switch {
	case p.Records == 0:
		return "There are no records, which proves nothing: the ring may be new, or may have been emptied."
	case !p.Whole():
		return fmt.Sprintf("The chain of %d records is broken in %s.", p.Records, places(p.BreaksTotal))
	}
	return fmt.Sprintf("Records %d to %d follow one another unchanged. This proves nothing about records before %d, "+
		"which the ring has forgotten, and nothing against somebody who could write the whole chain anew: "+
		"compare with a record that was exported before. The newest digest is %s.", p.First, p.Last, p.First, p.Head)
}

func places(n int) string {
	if n == 1 {
		return "1 place"
	}
	return fmt.Sprintf("%d places", n)
}
