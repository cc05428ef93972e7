//go:build interop

package authorities

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
)

// superviseVariable turns this binary into the keeper of one server.
const superviseVariable = "POSTERN_INTEROP_SUPERVISE"

// TestMain is also the keeper: it runs the command of its arguments until stdin
// closes or serverAge is over, so that no server outlives a test run that was
// killed.
func TestMain(m *testing.M) {
	if os.Getenv(superviseVariable) == "" {
		os.Exit(m.Run())
	}
	ctx, cancel := context.WithTimeout(context.Background(), serverAge)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[1], os.Args[2:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until whoever started us has gone
		cancel()
	}()
	if err := cmd.Run(); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
