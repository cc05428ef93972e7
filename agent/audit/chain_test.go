package audit

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestChainHoldsOverRestarts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 30 {
			w.Record(issued(fmt.Sprintf("api://%d", i), "fetched"))
			if i%10 == 9 {
				if err := w.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
				w.restart()
			}
		}
		proof, err := w.Verify(t.Context())
		if err != nil || !proof.Whole() || proof.Records != 30 || proof.First != 1 || proof.Last != 30 {
			t.Errorf("%+v, %v", proof, err)
		}
	})
}

func TestRingForgetsTheOldestAndStillHolds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 2500 {
			w.Record(issued(fmt.Sprintf("api://%d", i), "fetched"))
			if i%500 == 499 {
				if err := w.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		proof, err := w.Verify(t.Context())
		if err != nil || !proof.Whole() || proof.Last != 2500 || proof.Records > 2000 || proof.Records < 1500 {
			t.Errorf("%+v, %v", proof, err)
		}
		if !strings.Contains(proof.Says(), "before "+fmt.Sprint(proof.First)) {
			t.Errorf("the proof does not say what it does not prove: %s", proof.Says())
		}
	})
}

// nine returns a chain of nine records.
func nine(t *testing.T) (lines [][]byte) {
	t.Helper()
	prev := genesis
	for i := range 9 {
		r := Record{Schema: Schema, Seq: uint64(i + 1), Event: TokenIssued, Count: 1, Resource: "api://x", Prev: string(prev)}
		line, err := encode(&r)
		if err != nil {
			t.Fatal(err)
		}
		lines, prev = append(lines, line), digestOf(line)
	}
	return lines
}

func TestVerifyFindsWhatWasDoneToTheChain(t *testing.T) {
	t.Parallel()
	replace := func(at int, old, with string) func([][]byte) [][]byte {
		return func(l [][]byte) [][]byte {
			l[at] = bytes.Replace(l[at], []byte(old), []byte(with), 1)
			return l
		}
	}
	for name, c := range map[string]struct {
		change func(l [][]byte) [][]byte
		breaks int
		says   string
	}{
		"nothing":        {func(l [][]byte) [][]byte { return l }, 0, "Records 1 to 9 follow one another"},
		"oldest gone":    {func(l [][]byte) [][]byte { return l[3:] }, 0, "Records 4 to 9"},
		"all gone":       {func([][]byte) [][]byte { return nil }, 0, "proves nothing"},
		"one changed":    {replace(4, "api://x", "api://y"), 1, "broken in 1 place"},
		"one left out":   {func(l [][]byte) [][]byte { return slices.Delete(l, 4, 5) }, 1, "broken"},
		"two exchanged":  {func(l [][]byte) [][]byte { l[4], l[5] = l[5], l[4]; return l }, 3, "broken"},
		"one twice":      {func(l [][]byte) [][]byte { return slices.Insert(l, 5, l[4]) }, 1, "broken"},
		"not a record":   {replace(4, "{", "["), 2, "broken"},
		"another schema": {replace(4, "audit/1", "audit/9"), 2, "broken"},
		"false start":    {replace(0, "000000", "000001"), 2, "broken"},
		"newest changed": {replace(8, "api://x", "api://y"), 0, "compare with a record that was exported"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var chain Chain
			for _, line := range c.change(nine(t)) {
				chain.Add(line)
			}
			p := chain.Proof()
			if p.BreaksTotal != c.breaks || len(p.Breaks) != c.breaks || p.Whole() != (c.breaks == 0) || !strings.Contains(p.Says(), c.says) {
				t.Errorf("%d breaks, want %d: %+v; %s", p.BreaksTotal, c.breaks, p.Breaks, p.Says())
			}
		})
	}
}

func TestBreaksOfARuinedFileAreBounded(t *testing.T) {
	t.Parallel()
	var chain Chain
	for range 100 {
		chain.Add([]byte("x"))
	}
	if p := chain.Proof(); p.BreaksTotal != 100 || len(p.Breaks) != maxBreaks {
		t.Errorf("%d of %d breaks are listed", len(p.Breaks), p.BreaksTotal)
	}
}

func FuzzChain(f *testing.F) {
	f.Add([]byte(`{"schema":"postern.audit/1","seq":1,"count":1,"prev":""}`))
	f.Add([]byte(`{"schema":"postern.audit/1","seq":18446744073709551615}`))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, line []byte) {
		var c Chain
		for range 3 {
			c.Add(line)
		}
		if p := c.Proof(); p.Records != 3 || p.Whole() || p.Says() == "" {
			t.Errorf("the same line three times is a whole chain: %+v", p)
		}
	})
}
