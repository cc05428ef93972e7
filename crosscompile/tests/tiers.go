package main

import (
	"context"
	"fmt"
	"io"
	"time"
)

// tier is one set of steps under one time limit.
type tier struct {
	name, what string
	limit      time.Duration
	packages   []need
	steps      []step
}

// step is one command: a go test that is counted, or a command that must succeed.
type step struct {
	name string
	dir  string   // below the project's root
	test []string // arguments of go test -json
	env  []string // added to the environment
	run  []string // instead of test
	// silent means that the command must print nothing: gofmt -l
	silent bool
}

func goTest(name, dir string, args ...string) step { return step{name: name, dir: dir, test: args} }

// tiers lists what can be run. Every tier is bounded.
func tiers() []tier {
	checks := []step{
		{name: "gofmt", run: []string{"gofmt", "-l", "agent", "platform", "store", "crosscompile"}, silent: true},
		{name: "vet linux", run: []string{"go", "vet", "./..."}, env: []string{"GOOS=linux"}},
		{name: "vet windows", run: []string{"go", "vet", "./..."}, env: []string{"GOOS=windows"}},
		{name: "vet linux/arm64", run: []string{"go", "vet", "./platform/...", "./agent/..."}, env: []string{"GOOS=linux", "GOARCH=arm64"}},
	}
	return []tier{
		{
			name: "short", what: "everything that a change must pass: checks, all rooms, real clients (CI; about 15 min on 2 cores)", limit: 60 * time.Minute,
			packages: basics(), steps: append(checks,
				goTest("rooms", ".", "-timeout", "20m", "./..."),
				step{name: "npm packages", dir: "agent/interop/js", run: []string{"npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"}},
				goTest("real clients", "agent/interop", "-timeout", "20m", "./..."),
			),
		},
	}
}

func find(name string) (tier, bool) {
	for _, t := range tiers() {
		if t.name == name {
			return t, true
		}
	}
	return tier{}, false
}

func (t tier) run(ctx context.Context, out io.Writer, verbose bool, total *count) error {
	ctx, cancel := context.WithTimeout(ctx, t.limit)
	defer cancel()
	if err := install(ctx, out, t.packages); err != nil {
		return err
	}
	for _, s := range t.steps {
		began := time.Now()
		_, _ = fmt.Fprintf(out, "== %s\n", s.name)
		if err := s.do(ctx, out, verbose, total); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		_, _ = fmt.Fprintf(out, "   %s: %s\n", s.name, time.Since(began).Round(100*time.Millisecond))
	}
	return nil
}
