package store

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
)

// staged is what the disk does not have yet: names of tokens, whose values are
// in memory, and audit entries.
type staged struct {
	tokens  map[TokenKey]struct{}
	contact bool
	audit   []AuditEntry
	bytes   int // of audit
}

func (s *staged) reset() { *s = staged{tokens: map[TokenKey]struct{}{}} }

// append adds entries and lets the oldest go when the ring's limits are
// passed, most entries or its bytes; it returns how many went.
func (s *staged) append(entries []AuditEntry, most int) (gone int) {
	for _, e := range entries {
		s.audit = append(s.audit, AuditEntry{e.Seq, slices.Clone(e.JSON)})
		s.bytes += len(e.JSON)
	}
	for len(s.audit) > most || s.bytes > ringBytes {
		s.bytes -= len(s.audit[0].JSON)
		s.audit = s.audit[1:]
		gone++
	}
	return gone
}

// round is one commit's share of what was staged.
type round struct {
	puts    []TokenRecord
	drops   []TokenKey
	contact *ContactRecord
	audit   []AuditEntry
}

func (r round) empty() bool {
	return len(r.puts) == 0 && len(r.drops) == 0 && r.contact == nil && len(r.audit) == 0
}

// take moves what is staged into a round. It needs mu.
func (c *Cache) take() round {
	var r round
	for k := range c.staged.tokens {
		if t, ok := c.tokens[k]; ok {
			r.puts = append(r.puts, t)
		} else {
			r.drops = append(r.drops, k)
		}
	}
	sortTokens(r.puts)
	sort.Slice(r.drops, func(i, j int) bool {
		a, b := r.drops[i], r.drops[j]
		return cmp.Or(cmp.Compare(a.ClientID, b.ClientID), cmp.Compare(a.Resource, b.Resource)) < 0
	})
	if c.staged.contact {
		contact := c.contact
		r.contact = &contact
	}
	r.audit = c.staged.audit
	c.staged.reset()
	return r
}

// putBack stages a round again that was not written. What was staged meanwhile
// is newer and already in memory, so names are enough.
func (s *staged) putBack(r round, most int) (gone int) {
	for _, t := range r.puts {
		s.tokens[t.key()] = struct{}{}
	}
	for _, k := range r.drops {
		s.tokens[k] = struct{}{}
	}
	s.contact = s.contact || r.contact != nil
	later := s.audit
	s.audit, s.bytes = nil, 0
	return s.append(slices.Concat(r.audit, later), most)
}

// apply writes the round; the ring keeps most entries.
func (r round) apply(tx *Tx, ring *ring, most int) error {
	for _, k := range r.drops {
		if err := tx.remove(k.place()); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	for _, t := range r.puts {
		if err := emitJSON(tx.put, t.key().place(), t); err != nil {
			return err
		}
	}
	if r.contact != nil {
		if err := emitJSON(tx.put, place{contactBucket, contactKey}, *r.contact); err != nil {
			return err
		}
	}
	return ring.write(tx, r.audit, most)
}

func emitJSON(emit func(place, []byte) error, p place, v any) error {
	plain, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	return emit(p, plain)
}
