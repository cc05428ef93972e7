// Postern gives every program on a device an identity without a secret in its
// code: it keeps a certificate per identity, trades it for tokens at an
// authority, and answers the localhost protocols that Azure programs speak.
//
// This package holds the verbs and the wiring; each verb is one file. What the
// verbs do lives in the rooms below.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"postern/agent/control"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the program: it returns the exit code and never ends the process.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	deaf := ignoreRootsOfEnvironment()
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	c := &cli{stdin: stdin, stdout: stdout, stderr: redactor{stderr}, deaf: deaf, args: args, called: os.Args[0]}
	err := c.root().Run(ctx, args, stdout)
	if err == nil {
		return control.ExitDone
	}
	return c.explain(ctx, err)
}

// ignoreRootsOfEnvironment takes away the variables with which Go would read the
// system's roots from elsewhere: whoever starts us must not say whom we believe
// (firmware-notes/authorities.md). token.roots is how an operator does. It
// comes before anything verifies a chain, because the roots are read once. It
// returns the names of those that were set.
func ignoreRootsOfEnvironment() []string {
	var set []string
	for _, name := range []string{"SSL_CERT_FILE", "SSL_CERT_DIR"} {
		if _, found := os.LookupEnv(name); found && os.Unsetenv(name) == nil {
			set = append(set, name)
		}
	}
	return set
}

// explain prints an error for a person (or one JSON line with --json) and
// returns its exit code.
func (c *cli) explain(ctx context.Context, err error) int {
	var quiet exitCode
	if errors.As(err, &quiet) {
		return int(quiet)
	}
	f := *control.AsFault(err)
	if interrupted(ctx, err) {
		f = *control.NewFault(control.ExitInterrupted, "interrupted", c.invocation(), "interrupted before it was done")
	}
	if f.ID == "not-running" && c.stateDir != "" && !missingFile(devMemoryIn(c.stateDir)) {
		f.Fix = "postern dev" // it is a trial that does not run
	}
	if f.Fix = c.complete(f.Fix); f.Fix == "" {
		f.Fix = c.lookInto(err)
	}
	if c.json || slices.Contains(c.args, "--json") { // which is not read any more behind a flag that nobody knows
		if len(f.Chain) == 0 {
			f.Chain = control.CauseChain(err)
		}
		_ = c.printJSON(f)
		return f.Exit
	}
	_, _ = fmt.Fprintf(c.stderr, "postern: %s\n", f.Message)
	if f.Fix != "" {
		_, _ = fmt.Fprintf(c.stderr, "fix: %s\n", f.Fix)
	}
	if c.verbose {
		for _, cause := range control.CauseChain(err) {
			_, _ = fmt.Fprintf(c.stderr, "  because: %s\n", cause)
		}
	}
	return f.Exit
}

// interrupted says that somebody pressed Ctrl-C, or that the init system stops
// us, and that this is why the verb failed: whatever words it came back with.
func interrupted(ctx context.Context, err error) bool {
	return ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx)))
}

// exitCode ends a verb that has said all there is to say with its output.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit %d", int(e)) }
