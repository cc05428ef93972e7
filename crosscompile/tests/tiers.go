package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
)

// tier is one set of steps under one time limit.
type tier struct {
	name, what string
	limit      time.Duration
	packages   []need
	steps      []step
	each       func(ctx context.Context) ([]step, error) // steps that are found when the tier runs
}

// step is one command: a go test that is counted, or a command that must succeed.
type step struct {
	name string
	dir  string   // below the project's root
	test []string // arguments of go test -json
	env  []string // added to the environment
	run  []string // instead of test
	// only and except choose among the packages that "./..." at the end of test
	// names, by the beginning of their paths
	only, except []string
	// limit ends the step, counts it as a failure and lets the next one run; 0 leaves
	// it to the tier
	limit time.Duration
	// silent means that the command must print nothing: gofmt -l
	silent bool
}

func goTest(name, dir string, args ...string) step { return step{name: name, dir: dir, test: args} }

// tiers lists what can be run. Every tier is bounded.
func tiers() []tier {
	return append([]tier{
		{
			name: "short", what: "everything that a change must pass: checks, all rooms, real clients, machines; what CI runs (at most 80 min)",
			limit: 80 * time.Minute, packages: slices.Concat(basics(), machineNeeds(), emulators()), steps: slices.Concat(checks(), []step{
				rooms(),
				{name: "npm packages", dir: "agent/interop/js", run: []string{"npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"}, limit: 2 * time.Minute},
				{name: "real clients", dir: "agent/interop", test: []string{"-timeout", "7m", "./..."}, limit: 8 * time.Minute},
				emulated("short", 6*time.Minute),
			}, booted()),
		},
		{
			name: "lint", what: "golangci-lint, built from crosscompile/tools (at most 30 min)", limit: 30 * time.Minute,
			steps: []step{{name: "golangci-lint", run: []string{"go", "tool", "-modfile=crosscompile/tools/go.mod", "golangci-lint", "run", "./..."}}},
		},
		{
			name: "race", what: "all rooms under the race detector (at most 60 min)", limit: time.Hour,
			packages: append(basics(), need{"gcc", "gcc"}, need{"/usr/include/stdlib.h", "libc6-dev"}),
			steps:    []step{{name: "race", env: []string{"CGO_ENABLED=1"}, test: []string{"-race", "-timeout", "50m", "./agent/...", "./store/...", "./platform/..."}}},
		},
		{
			name: "fuzz", what: "every fuzz target for 60 s (about 50 min)", limit: 2 * time.Hour, packages: basics(), each: fuzzTargets,
		},
		{
			name: "sim", what: "2,000 simulated lives of 400 days (at most 3 h)", limit: 3 * time.Hour,
			steps: []step{goTest("simulation", "agent", "-run", "Sim|Lives|Life", "-sim.seeds=2000", "-timeout", "170m", ".")},
		},
		{
			name: "crash", what: "10,000 simulated power cuts, 1,000 kills, 5,000 damaged files and 10,000 flipped bits (at most 2 h)", limit: 2 * time.Hour, packages: basics(),
			steps: []step{goTest("crash", "store", "-run", "PowerCut|Killed|Damaged|FlippedBit", "-store.images=10000", "-store.kills=1000", "-store.damage=5000", "-timeout", "110m", ".")},
		},
		{
			name: "powercut", what: "the power of a machine is cut: 1,300 crash points, 60 kills, ext4 and f2fs, flash costs; as root (about 20 min)", limit: 2 * time.Hour,
			packages: []need{
				{"qemu-system-aarch64", "qemu-system-arm"}, {"mke2fs", "e2fsprogs"}, {"mkfs.f2fs", "f2fs-tools"}, {"modprobe", "kmod"}, {"mount", "mount"}, {"unshare", "util-linux"},
			},
			steps: []step{{name: "power cuts", dir: "crosscompile/qemu/powercut", env: []string{"POSTERN_QEMU=full"}, test: []string{"-timeout", "110m", "./..."}}},
		},
		{
			name: "guards", what: "takes out each guard of endpoint, challenges, platform and store and sees a test fail; as root (about 20 min)", limit: time.Hour, packages: basics(),
			steps: []step{goTest("guards", "agent/endpoint", "-run", "TestEveryGuardThatIsTakenOutIsMissed", "-guards", "-timeout", "50m", ".")},
		},
		{
			name: "authorities", what: "our drivers against step-ca, oidc-provider and fosite (about 10 min)", limit: 45 * time.Minute, packages: basics(),
			steps: []step{goTest("real authorities", "agent/interop/authorities", "-tags", "interop", "-timeout", "40m", "./...")},
		},
		{
			name: "reproducible", what: "every target built twice, in two folders (at most 90 min)", limit: 90 * time.Minute, packages: []need{{"git", "git"}},
			steps: []step{goTest("reproducible", "crosscompile", "-run", "Reproducible|Budget|Static", "-all", "-timeout", "80m", "."), goTest("releases", "crosscompile/release", "-all", "-timeout", "80m", ".")},
		},
	}, append(machineTiers(), emulatedTier())...)
}

// checks are what every change must pass before it is tested.
func checks() []step {
	return []step{
		{name: "gofmt", run: []string{"gofmt", "-l", "agent", "platform", "store", "crosscompile"}, silent: true, limit: time.Minute},
		{name: "vet linux", run: []string{"go", "vet", "./..."}, env: []string{"GOOS=linux"}, limit: 2 * time.Minute},
		{name: "vet linux/arm64", run: []string{"go", "vet", "./platform/...", "./agent/..."}, env: []string{"GOOS=linux", "GOARCH=arm64"}, limit: 2 * time.Minute},
		{name: "vet windows", run: []string{"go", "vet", "./..."}, env: []string{"GOOS=windows"}, limit: 2 * time.Minute},
		compiled("windows", "arm64"),
		compiled("linux", "arm", "GOARM=6"),
	}
}

// compiled builds the program for a processor on which nothing of the short
// tier runs it.
func compiled(system, arch string, env ...string) step {
	return step{
		name: "compile " + system + "/" + arch, run: []string{"go", "build", "-o", os.DevNull, "./agent"},
		env: append([]string{"CGO_ENABLED=0", "GOOS=" + system, "GOARCH=" + arch}, env...), limit: 4 * time.Minute,
	}
}

// rooms tests everything without cgo, as it is released: with it some calls
// that harden a process are not to be had.
func rooms() step {
	return step{name: "rooms", test: []string{"-timeout", "17m", "./..."}, env: []string{"CGO_ENABLED=0"}, except: []string{machines, pictures, foreignBinaries}, limit: 19 * time.Minute}
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
	steps := t.steps
	if t.each != nil {
		found, err := t.each(ctx)
		if err != nil {
			return err
		}
		steps = found
	}
	for _, s := range steps {
		began := time.Now()
		_, _ = fmt.Fprintf(out, "== %s\n", s.name)
		if err := s.do(ctx, out, verbose, total); err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			total.failed++
			_, _ = fmt.Fprintf(out, "--- FAIL step %s: %v\n", s.name, err)
		}
		_, _ = fmt.Fprintf(out, "   %s: %s\n", s.name, time.Since(began).Round(100*time.Millisecond))
	}
	return nil
}
