// Command tests runs the project's tests on a machine that has only Go: it
// installs what a tier needs (Debian packages as root, npm packages), runs it,
// and ends with one line that counts: "N passed, N failed, N skipped".
//
//	go run ./crosscompile/tests            the short tier, what CI runs
//	go run ./crosscompile/tests -list      all tiers, what they do and their bounds
//	go run ./crosscompile/tests TIER...    others
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout))
}

func run(args []string, out io.Writer) int {
	flags := flag.NewFlagSet("tests", flag.ContinueOnError)
	list := flags.Bool("list", false, "list the tiers")
	verbose := flags.Bool("v", false, "print every test and what it logs")
	if flags.Parse(args) != nil {
		return 2
	}
	if *list {
		for _, t := range tiers() {
			_, _ = fmt.Fprintf(out, "%-12s %s\n", t.name, t.what)
		}
		return 0
	}
	names := flags.Args()
	if len(names) == 0 {
		names = []string{"short"}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var chosen []tier
	for _, name := range names { // all are looked up before the first takes its hour
		t, ok := find(name)
		if !ok {
			_, _ = fmt.Fprintf(out, "tests: there is no tier %q; see -list\n", name)
			return 2
		}
		chosen = append(chosen, t)
	}
	var total count
	for _, t := range chosen {
		if err := t.run(ctx, out, *verbose, &total); err != nil {
			_, _ = fmt.Fprintf(out, "tests: %s: %v\n", t.name, err)
			total.failed++
			break
		}
	}
	_, _ = fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", total.passed, total.failed, total.skipped)
	if total.failed > 0 || total.passed == 0 {
		return 1
	}
	return 0
}
