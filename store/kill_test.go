package store

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
)

// ST14. A writer is killed at a random acknowledgement, or anywhere after it,
// and the directory judged; then the next writer goes on from there.
func TestST14_KilledWriterLosesNothingAcknowledged(t *testing.T) {
	const stretch = 400
	rounds := max(*killRounds/share, 3)
	dir := scratch(t)
	all := worlds(rounds*60 + stretch + 2)
	r := rand.New(rand.NewPCG(14, uint64(rounds)))
	done := 0
	for round := range rounds {
		last, err := killedWriter(t, dir, done, done+stretch, r.IntN(50), r.IntN(4000))
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if done, err = judge(dir, last, all); err != nil {
			t.Fatalf("round %d, killed after %d was acknowledged: %v", round, last, err)
		}
	}
	t.Logf("%d kills, %d operations acknowledged, none lost", rounds, done)
}

// killedWriter lets a writer do operations and kills it some time after it
// acknowledged a number of them. It returns the last acknowledgement.
func killedWriter(t *testing.T, dir string, done, to, acks, spins int) (int, error) {
	cmd := as(t.Context(), "writer", dir, fmt.Sprint(done+1), fmt.Sprint(to))
	out, err := lines(cmd)
	if err != nil {
		return 0, err
	}
	last, seen := -1, 0
	for out.Scan() {
		n, ok := acked(out.Text())
		if !ok {
			break // "unexpected fault" and the like: judged below
		}
		last = n
		if seen++; seen == acks+1 {
			runtime.KeepAlive(spin(spins)) // into the middle of the next operation
			if err := cmd.Process.Kill(); err != nil {
				return 0, err
			}
		}
	}
	err = cmd.Wait()
	if seen <= acks {
		return 0, fmt.Errorf("the writer ended by itself after %d: %w", last, err)
	}
	return last, nil
}

// spin burns a little time that differs from round to round.
func spin(n int) uint64 {
	x := uint64(n)
	for range n * 100 {
		x = x*6364136223846793005 + 1442695040888963407
	}
	return x
}
