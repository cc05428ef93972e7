// Command release builds every target and packs what is published: archives,
// a software bill of materials for each binary, and their checksums. The same
// commit gives the same bytes in any folder.
//
//	go run ./crosscompile/release -version 1.2.3 -out dist
//	go run ./crosscompile/release sizes     what each module and package weighs
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"postern/crosscompile"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	verb := "release"
	if len(args) > 0 && args[0] == "sizes" {
		verb, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet(verb, flag.ContinueOnError)
	flags.SetOutput(errOut)
	names := flags.String("targets", "", "comma-separated `names` such as linux-arm64; all if empty")
	version := flags.String("version", "", "`version` of the release, without a leading v")
	dir := flags.String("out", "", "`folder` for what is made; it must be empty")
	commit := flags.String("commit", "", "`hash` to write down, outside of a repository or for a changed tree")
	least := flags.Int64("least", 16<<10, "sizes: `bytes` that a package must have to be listed")
	if flags.Parse(args) != nil || flags.NArg() > 0 {
		return 2
	}
	err := func() error {
		targets, err := choose(*names)
		if err != nil {
			return err
		}
		root, err := projectRoot(ctx)
		if err != nil {
			return err
		}
		if verb == "sizes" {
			return reportSizes(ctx, out, root, targets, *least)
		}
		if *version == "" || *dir == "" {
			return errors.New("-version and -out are needed")
		}
		r := release{root: root, out: *dir, version: *version, targets: targets, say: out}
		if r.commit, r.time, err = origin(ctx, root, *commit, os.Getenv("SOURCE_DATE_EPOCH")); err != nil {
			return err
		}
		return r.make(ctx)
	}()
	if err != nil {
		_, _ = fmt.Fprintf(errOut, "%s: %v\n", verb, err)
		return 1
	}
	return 0
}

func choose(names string) ([]crosscompile.Target, error) {
	all := crosscompile.Targets()
	if names == "" {
		return all, nil
	}
	var list []crosscompile.Target
	for name := range strings.SplitSeq(names, ",") {
		found := len(list)
		for _, t := range all {
			if t.String() == name {
				list = append(list, t)
			}
		}
		if len(list) == found {
			return nil, fmt.Errorf("there is no target %q", name)
		}
	}
	return list, nil
}

func projectRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("run this inside the project: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}
