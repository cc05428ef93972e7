// Command bench prints one table: binary sizes, start, memory, wake-ups and
// flash writes of the release build, and the latency and throughput of every
// flavour beside a floor program in the same run. Linux only; loopback only;
// about four minutes. Compare rows of one run on one idle machine.
//
//	go run ./crosscompile/bench [-runs 11] [-load 3s] [-idle 30s]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are how long each part takes.
type options struct {
	runs       int
	load, idle time.Duration
}

func run() (err error) {
	var o options
	flag.IntVar(&o.runs, "runs", 11, "cold starts")
	flag.DurationVar(&o.load, "load", 3*time.Second, "time for each load row")
	flag.DurationVar(&o.idle, "idle", 30*time.Second, "idle window")
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
	for _, part := range []func(context.Context, options, *tabwriter.Writer) error{
		b.sizes, b.flash, b.start, b.idleRows, b.loadRows,
	} {
		if err := part(ctx, o, table); err != nil {
			return err
		}
	}
	return nil
}
