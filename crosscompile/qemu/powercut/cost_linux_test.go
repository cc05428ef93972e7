//go:build linux

package powercut

import "testing"

// TestFlashCostOfEachPartOfLife counts what one act of the agent sends to the
// device, its file system's part included: everything is synced before each mark,
// so nothing is put off to the next one. The budgets are those of
// firmware-notes/flash-wear.md.
func TestFlashCostOfEachPartOfLife(t *testing.T) {
	needs(t, "full")
	for tokens, refresh := range map[string]int64{"2": 96 << 10, "10": 200 << 10} {
		t.Run(tokens+" tokens a round", func(t *testing.T) {
			r := record(t, machine{fs: "ext4", args: []string{"-settle", "-tokens", tokens}}, uint64(amount(170, 170)))
			r.costs(t, map[string]int64{Refreshed: refresh, Pending: 400 << 10, Renewed: 400 << 10, Connected: 560 << 10, Disconnected: 700 << 10})
		})
	}
}

func (r recording) costs(t *testing.T, budget map[string]int64) {
	t.Helper()
	for _, c := range r.log.Costs(r.marks[1:]) {
		t.Logf("%-13s %3d times: median %d KB, mean %d KB, most %d KB; %.1f writes, %.1f flushes; the store counts %d KB",
			c.What, c.Times, c.Median>>10, c.Mean>>10, c.Most>>10, c.Writes, c.Flushes, c.Said>>10)
		if limit, has := budget[c.What]; has && c.Median > limit {
			t.Errorf("%s costs %d bytes, its budget is %d", c.What, c.Median, limit)
		}
		delete(budget, c.What)
	}
	for what := range budget {
		t.Errorf("%s was not measured", what)
	}
}
