package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

const fuzzTime = "60s"

// fuzzTargets finds every fuzz target of the module. go test runs one target
// of one package at a time.
func fuzzTargets(ctx context.Context) ([]step, error) {
	root, err := projectRoot()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-list", "^Fuzz", "./...")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list the fuzz targets: %w\n%s", err, stderr.String())
	}
	var steps []step
	var targets []string
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 1 && strings.HasPrefix(fields[0], "Fuzz"):
			targets = append(targets, fields[0])
		case len(fields) >= 2 && fields[0] == "ok":
			for _, target := range targets {
				steps = append(steps, goTest(fields[1]+" "+target, ".", "-run", "^$", "-fuzz", "^"+target+"$", "-fuzztime", fuzzTime, fields[1]))
			}
			targets = nil
		}
	}
	if len(steps) == 0 {
		return nil, errors.New("no fuzz target was found")
	}
	return steps, nil
}
