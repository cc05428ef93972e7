//go:build linux

package powercut

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/crosscompile/qemu"
)

// killed boots a machine again and again and ends it at a random moment. The
// writer looks at each start whether the newest mark was kept. What the guest
// had submitted survives on the host, flushed or not: a smoke test.
func killed(t *testing.T, m machine, cycles int) {
	t.Helper()
	g := m.prepare(t, folder(t))
	chance := rand.New(rand.NewPCG(*seed, 11))
	began, last := time.Now(), Mark{}
	for cycle := range cycles + 1 { // the first boot has nothing to keep
		want := fmt.Sprintf("kept: mark %d,", last.Seq)
		enough := last.Seq + 2 + chance.Uint64N(18)
		said := g.run(t, "", func(m Mark) bool { return m.Seq >= enough })
		if cycle > 0 && !slices.ContainsFunc(said, func(line string) bool { return strings.HasPrefix(line, want) }) {
			t.Fatalf("cycle %d of seed %d: the writer said %q, want %q", cycle, *seed, said, want)
		}
		var err error
		if last, err = diskMark(g.disk); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%s: %d kills, %d acknowledged, nothing lost; %s a cycle", m.fs, cycles, last.Seq, (time.Since(began) / time.Duration(cycles+1)).Round(100*time.Millisecond))
}

func TestKilledMachineKeepsWhatItAcknowledged(t *testing.T) {
	needs(t, "short")
	killed(t, machine{fs: "ext4"}, amount(3, 40))
}

func TestKilledMachineKeepsWhatItAcknowledgedOnF2FS(t *testing.T) {
	needs(t, "full")
	qemu.Tools(t, "mkfs.f2fs")
	killed(t, machine{fs: "f2fs", kernel: "arm64"}, amount(3, 20))
}
