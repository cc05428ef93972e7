package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"postern/crosscompile"
)

// reportSizes prints for each target its size, budget and headroom, then what
// each module weighs in it and which of its packages weigh at least least bytes.
func reportSizes(ctx context.Context, out io.Writer, root string, targets []crosscompile.Target, least int64) error {
	work, err := os.MkdirTemp("", "postern-sizes-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	for _, t := range targets {
		binary, err := crosscompile.Build(ctx, root, work, t, "")
		if err != nil {
			return err
		}
		info, err := os.Stat(binary)
		if err != nil {
			return err
		}
		weights, err := crosscompile.Weigh(ctx, root, work, t, info.Size())
		if err != nil {
			return err
		}
		modules, err := linked(ctx, root, t)
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(out, "%s %d bytes, budget %d, headroom %d (%.1f %%)\n", t, info.Size(), t.Budget,
			t.Budget-info.Size(), 100*float64(t.Budget-info.Size())/float64(t.Budget))
		printWeights(out, byModule(weights, modules), least)
	}
	return nil
}

// heap is one module with its packages.
type heap struct {
	name     string
	bytes    int64
	packages crosscompile.Weights
}

// byModule gathers packages under their modules, the heaviest first. Symbols
// of package main are the command's; lines that are no package stand for themselves.
func byModule(weights crosscompile.Weights, modules []*module) []heap {
	owner := map[string]string{"main": modules[0].path, "go": standard}
	for _, m := range modules {
		for _, p := range m.packages {
			owner[p] = m.path
		}
	}
	heaps := map[string]*heap{}
	for name, bytes := range weights {
		module := cmp.Or(owner[name], name)
		if !strings.HasPrefix(module, "(") && owner[name] == "" {
			module = standard // what the linker made for the standard library
		}
		h := heaps[module]
		if h == nil {
			h = &heap{name: module, packages: crosscompile.Weights{}}
			heaps[module] = h
		}
		h.bytes += bytes
		h.packages[name] = bytes
	}
	var list []heap
	for _, h := range heaps {
		list = append(list, *h)
	}
	slices.SortFunc(list, func(a, b heap) int { return cmp.Or(cmp.Compare(b.bytes, a.bytes), cmp.Compare(a.name, b.name)) })
	return list
}

func printWeights(out io.Writer, heaps []heap, least int64) {
	for _, h := range heaps {
		_, _ = fmt.Fprintf(out, "%9d  %s\n", h.bytes, h.name)
		if len(h.packages) == 1 {
			continue
		}
		names := slices.SortedFunc(maps.Keys(h.packages), func(a, b string) int {
			return cmp.Or(cmp.Compare(h.packages[b], h.packages[a]), cmp.Compare(a, b))
		})
		for _, name := range names {
			if h.packages[name] >= least {
				_, _ = fmt.Fprintf(out, "           %9d  %s\n", h.packages[name], name)
			}
		}
	}
}
