package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

// The verdicts that a child prints as the first word of its answer.
const (
	verdictOK      = "ok"
	verdictDamaged = "damaged"
	verdictForeign = "foreign"
	verdictNewer   = "newer"
	verdictLocked  = "locked"
	verdictUnsafe  = "unsafe"
	verdictStopped = "stopped" // the check was ended before it was done
	verdictUnknown = "unknown" // the check could not be made
	answerLimit    = 4 << 10
)

// WriteVerdict prints the outcome of VerifyFile in the form that Child reads:
// "ok", "damaged: page 7: …". It is the child's standard output.
func WriteVerdict(w io.Writer, err error) error {
	word := verdictUnknown
	switch {
	case err == nil:
		_, err := fmt.Fprintln(w, verdictOK)
		return err
	case errors.Is(err, ErrForeign):
		word = verdictForeign
	case errors.Is(err, ErrDamaged):
		word = verdictDamaged
	case errors.Is(err, ErrNewer):
		word = verdictNewer
	case errors.Is(err, ErrLocked):
		word = verdictLocked
	case errors.Is(err, ErrUnsafe):
		word = verdictUnsafe
	case unchecked(err):
		word = verdictStopped
	}
	_, werr := fmt.Fprintf(w, "%s: %.1024s\n", word, strings.Join(strings.Fields(err.Error()), " "))
	return werr
}

// deaths is how often in a row a child has to die before that is a verdict: one
// may die of a machine that has no thread or no memory left for it.
const deaths = 3

// errDied: a child ended without a verdict that can be believed.
var errDied = errors.New("the check did not survive it")

// Child returns an Options.Verify that runs the command, `postern store verify
// PATH`, and believes its verdict. Children that crash or say nothing, one after
// the other, have met a file that must not be mapped: ErrDamaged. A child that
// could not be started, was ended from outside (at shutdown every process of the
// unit gets SIGTERM), or was not done when the context ended, says nothing about
// the file: ErrUnchecked.
func Child(command func(ctx context.Context, path string) *exec.Cmd) func(ctx context.Context, path string) error {
	return func(ctx context.Context, path string) error {
		var err error
		for range deaths {
			if err = ask(ctx, command(ctx, path), path); !errors.Is(err, errDied) {
				return err
			}
		}
		return fmt.Errorf("%w: %w", err, ErrDamaged)
	}
}

// ask runs one child.
func ask(ctx context.Context, cmd *exec.Cmd, path string) error {
	var out answer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, &out, nil
	cmd.WaitDelay = time.Second // after the context's end nothing holds us longer
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w: %w", path, ErrUnchecked, err)
	}
	err := cmd.Wait()
	word, text, _ := strings.Cut(strings.TrimSpace(out.String()), ": ")
	if sentinel, known := verdictError(word); known && (err == nil) == (word == verdictOK) {
		if sentinel == nil {
			return nil
		}
		return fmt.Errorf("%s: %w", strings.TrimSuffix(text, ": "+sentinel.Error()), sentinel)
	}
	if word == verdictUnknown {
		return fmt.Errorf("check of %s: %s", path, text)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w: %w", path, ErrUnchecked, ctx.Err())
	}
	if endedFromOutside(cmd.ProcessState) {
		return fmt.Errorf("%s: %w: ended from outside: %w", path, ErrUnchecked, err)
	}
	if err == nil {
		err = errors.New("no verdict")
	}
	return fmt.Errorf("%s: %w (%w)", path, errDied, err)
}

func verdictError(word string) (error, bool) {
	switch word {
	case verdictOK:
		return nil, true
	case verdictDamaged:
		return ErrDamaged, true
	case verdictForeign:
		return ErrForeign, true
	case verdictNewer:
		return ErrNewer, true
	case verdictLocked:
		return ErrLocked, true
	case verdictUnsafe:
		return ErrUnsafe, true
	case verdictStopped:
		return ErrUnchecked, true
	}
	return nil, false
}

// answer keeps the beginning of what a child says.
type answer struct{ bytes.Buffer }

func (a *answer) Write(p []byte) (int, error) {
	if room := answerLimit - a.Len(); room > 0 {
		a.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
