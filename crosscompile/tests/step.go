package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// patience is how long the processes of a step that is ended have to tidy up.
const patience = 10 * time.Second

// count is what a run adds up. A package that does not build or that dies
// counts as a failure of its own.
type count struct{ passed, failed, skipped int }

func (s step) command(ctx context.Context, args []string) (*exec.Cmd, error) {
	root, err := projectRoot()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	together(cmd)
	cmd.Dir = filepath.Join(root, s.dir)
	cmd.Env = append(os.Environ(), s.env...)
	return cmd, nil
}

func projectRoot() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("run this inside the project: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// do runs the step within its limit. A step that takes longer is a failure, and
// the next one has its turn.
func (s step) do(ctx context.Context, out io.Writer, verbose bool, total *count) error {
	if s.limit == 0 {
		return s.once(ctx, out, verbose, total)
	}
	limited, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	err := s.once(limited, out, verbose, total)
	if ctx.Err() == nil && limited.Err() != nil {
		total.failed++
		_, _ = fmt.Fprintf(out, "--- FAIL step %s: no end within %s\n", s.name, s.limit)
		return nil
	}
	return err
}

func (s step) once(ctx context.Context, out io.Writer, verbose bool, total *count) error {
	if s.run != nil {
		err := s.doCommand(ctx)
		if err == nil {
			total.passed++ // lint is nothing but one command
		}
		return err
	}
	return s.doTests(ctx, out, verbose, total)
}

func (s step) doCommand(ctx context.Context) error {
	cmd, err := s.command(ctx, s.run)
	if err != nil {
		return err
	}
	words, err := cmd.CombinedOutput()
	if err == nil && s.silent && len(bytes.TrimSpace(words)) > 0 {
		err = errors.New("want no output")
	}
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(s.run, " "), err, words)
	}
	return nil
}

// chosen are the arguments of go test, with the packages of only and except.
func (s step) chosen(ctx context.Context) ([]string, error) {
	if s.only == nil && s.except == nil {
		return s.test, nil
	}
	cmd, err := s.command(ctx, []string{"go", "list", "./..."})
	if err != nil {
		return nil, err
	}
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	args, all := s.test[:len(s.test)-1:len(s.test)-1], len(s.test)
	for pkg := range strings.FieldsSeq(string(out)) {
		if (s.only == nil || startsWith(pkg, s.only)) && !startsWith(pkg, s.except) {
			args = append(args, pkg)
		}
	}
	if len(args) < all {
		return nil, errors.New("no package is left to test")
	}
	return args, nil
}

func startsWith(s string, list []string) bool {
	return slices.ContainsFunc(list, func(prefix string) bool { return s == prefix || strings.HasPrefix(s, prefix+"/") })
}

// event is one line of go test -json (go doc test2json).
type event struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64
}

func (s step) doTests(ctx context.Context, out io.Writer, verbose bool, total *count) error {
	args, err := s.chosen(ctx)
	if err != nil {
		return err
	}
	cmd, err := s.command(ctx, append([]string{"go", "test", "-json"}, args...))
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	lines, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	before := *total
	deaf := context.AfterFunc(ctx, func() { // what outlives the end may hold the pipe
		<-time.After(2 * patience)
		_ = lines.Close()
	})
	watch(lines, out, verbose, total)
	deaf()
	err = cmd.Wait()
	if err != nil && total.failed == before.failed {
		return fmt.Errorf("go test: %w\n%s", err, stderr.String())
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	left := os.Geteuid() != 0 && total.skipped > before.skipped // each of them said why
	if total.passed == before.passed && !left {
		return errors.New("no test was run")
	}
	return nil
}

// watch counts tests and prints the output of those that failed, and why
// others were skipped. A test that was still running when its package failed
// has no event of its own, and the stacks stand in its output.
func watch(lines io.Reader, out io.Writer, verbose bool, total *count) {
	output := map[string]*strings.Builder{}
	reader := bufio.NewScanner(lines)
	reader.Buffer(nil, 16<<20)
	for reader.Scan() {
		var e event
		if json.Unmarshal(reader.Bytes(), &e) != nil {
			_, _ = fmt.Fprintln(out, reader.Text())
			continue
		}
		pkg := e.Package + e.ImportPath + " "
		key := pkg + e.Test
		switch e.Action {
		case "output", "build-output":
			if output[key] == nil {
				output[key] = &strings.Builder{}
			}
			output[key].WriteString(e.Output)
			continue
		case "pass", "skip", "fail", "build-fail":
			if e.Action == "fail" && e.Test == "" {
				unended(out, total, output, pkg)
			}
			e.report(out, verbose, total, output[key])
			delete(output, key)
		}
	}
}

// unended reports the tests of a package that failed before they did.
func unended(out io.Writer, total *count, output map[string]*strings.Builder, pkg string) {
	for _, key := range slices.Sorted(maps.Keys(output)) {
		if test, of := strings.CutPrefix(key, pkg); of && test != "" {
			total.failed++
			_, _ = fmt.Fprintf(out, "--- FAIL %s did not end\n%s", key, output[key])
			delete(output, key)
		}
	}
}

func (e event) report(out io.Writer, verbose bool, total *count, output *strings.Builder) {
	text := ""
	if output != nil {
		text = output.String()
	}
	switch {
	case e.Action == "fail" || e.Action == "build-fail":
		if e.Test != "" || !strings.Contains(text, "FAIL\t"+e.Package) || strings.Contains(text, "panic:") {
			total.failed++
		}
		_, _ = fmt.Fprintf(out, "--- FAIL %s%s %s\n%s", e.Package, e.ImportPath, e.Test, text)
	case e.Test == "" && e.Action == "pass":
		_, _ = fmt.Fprintf(out, "ok   %s %.1fs\n", e.Package, e.Elapsed)
	case e.Test == "":
	case e.Action == "skip":
		total.skipped++
		_, _ = fmt.Fprintf(out, "--- SKIP %s %s\n%s", e.Package, e.Test, text)
	default:
		total.passed++
		if verbose {
			_, _ = fmt.Fprintf(out, "--- ok %s %s %.2fs\n%s", e.Package, e.Test, e.Elapsed, logged(text))
		}
	}
}

// logged is what a test said itself, without go test's own lines.
func logged(text string) string {
	var said strings.Builder
	for line := range strings.Lines(text) {
		if own := strings.TrimSpace(line); !strings.HasPrefix(own, "=== ") && !strings.HasPrefix(own, "--- ") {
			said.WriteString(line)
		}
	}
	return said.String()
}
