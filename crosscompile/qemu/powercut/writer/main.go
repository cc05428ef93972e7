//go:build linux

// Command writer is what runs in the guest of the power-cut tests. It does to
// the state directory what the agent does: an empty cache at the first start,
// enrolment, renewals with their pending keys, rounds of refreshed tokens, the
// end of the identity and a new beginning, all through the agent's own rooms.
// After each call that was acknowledged it writes a mark to the disk's second
// partition. At its start it looks whether the last mark was kept.
//
//	writer -dir /state/postern -marks-on /dev/vda2
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"postern/crosscompile/qemu/powercut"
)

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	flags := flag.NewFlagSet("writer", flag.ContinueOnError)
	dir := flags.String("dir", "", "state directory, on the first partition")
	partition := flags.String("marks-on", "", "the second partition")
	flush := flags.Bool("flush", false, "flush each mark: for a disk of which nobody keeps a log")
	tokens := flags.Int("tokens", 2, "refreshed in one round")
	settle := flags.Bool("settle", false, "sync all before each mark, so that a mark's share of the log is all that it cost")
	if flags.Parse(args) != nil || *dir == "" || *partition == "" {
		fmt.Println("usage: writer -dir DIR -marks-on PARTITION [-flush]")
		return 2
	}
	err := work(context.Background(), *dir, *partition, *flush, func(w *worker) { w.tokens, w.settle = *tokens, *settle })
	if errors.Is(err, errLost) {
		fmt.Println("LOST", err)
		return 3
	}
	if err != nil {
		fmt.Println("writer:", err)
		return 1
	}
	return 0
}

// errLost: something that was acknowledged before the cut is not there.
var errLost = errors.New("acknowledged and gone")

// work goes on until the power is cut.
func work(ctx context.Context, dir, partition string, flush bool, set func(*worker)) error {
	board, last, err := openBoard(partition, flush)
	if err != nil {
		return err
	}
	if err := makeState(dir); err != nil {
		return err
	}
	f, c, err := powercut.Open(ctx, dir, nil)
	if err != nil {
		return lostIf(last != nil, err)
	}
	found, err := powercut.StateOf(f, c)
	if err != nil {
		return lostIf(last != nil, err)
	}
	if last != nil {
		if err := found.Allowed(*last, nil); err != nil {
			return lostIf(true, err)
		}
		fmt.Printf("kept: mark %d, certificate %d, round %d; recovered %q %q\n", last.Seq, found.Serial, found.Round, f.Health().Recovered, c.Health().Recovered)
	}
	w, err := newWorker(f, c, board, last, found)
	if err != nil {
		return err
	}
	set(w)
	if err := w.mark(powercut.Opened, w.plan()[0].next()); err != nil {
		return err
	}
	for {
		if err := w.step(ctx); err != nil {
			return err
		}
	}
}

// lostIf words an error of the first look after a cut.
func lostIf(promised bool, err error) error {
	if promised && err != nil {
		return fmt.Errorf("%w: %w", errLost, err)
	}
	return err
}

// makeState makes the state directory and its name durable, as the
// installation does.
func makeState(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	parent, err := os.Open(filepath.Dir(dir))
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}
