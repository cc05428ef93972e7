//go:build linux

// Command bench prints one table: binary sizes, start, memory, wake-ups and
// flash writes of the release build, and the latency and throughput of every
// flavour beside a floor program in the same run. Linux only; loopback only;
// about six minutes. Compare rows of one run on one idle machine. As root it
// mounts a tmpfs of its own for the runtime directory.
//
//	go run ./crosscompile/bench [-runs 11] [-load 3s] [-settle 75s] [-idle 120s]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	if err := errors.Join(ownMounts(), run()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are how long each part takes.
type options struct {
	runs               int
	load, settle, idle time.Duration
}

func run() (err error) {
	var o options
	flag.IntVar(&o.runs, "runs", 11, "cold starts")
	flag.DurationVar(&o.load, "load", 3*time.Second, "time for each load row")
	flag.DurationVar(&o.settle, "settle", 75*time.Second, "time from the last start to the idle window")
	flag.DurationVar(&o.idle, "idle", 2*time.Minute, "idle window")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	b, err := newBench(ctx)
	if err != nil {
		return err
	}
	defer b.close()
	table := tabwriter.NewWriter(os.Stdout, 2, 8, 2, ' ', 0)
	defer func() { _ = table.Flush() }()
	_, _ = fmt.Fprintf(table, "machine\t%s\t\n", machine())
	_, _ = fmt.Fprintf(table, "challenge files on\t%s\t\n", fileSystem(b.runtime))
	for _, part := range []func(context.Context, options, *tabwriter.Writer) error{
		b.sizes, b.flash, b.start, b.idleRows, b.loadRows,
	} {
		if err := part(ctx, o, table); err != nil {
			return err
		}
	}
	return nil
}
