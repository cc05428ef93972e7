package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"postern/agent/control"
	"postern/agent/lifecycle"
	"postern/agent/verb"
)

func (c *cli) waitVerb() *verb.Command {
	var target string
	timeout := 30 * time.Second
	long, example := manual("Wait until the agent answers (ready) or has spoken with its authority (connected).",
		[]string{"postern wait --for ready", "postern wait --for connected --timeout 2m"}, "0 reached; 2 usage; 8 not reached in time")
	cmd := &verb.Command{
		Use: "wait", Short: "Wait for the agent", Long: long, Example: example,
		RunE: func(cmd *verb.Command, _ []string) error {
			if target != "ready" && target != "connected" {
				return control.NewFault(control.ExitUsage, "usage", "postern wait --for ready", "wait: --for is %q, want ready or connected", target)
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			return c.waitFor(cmd, client, target, timeout)
		},
	}
	cmd.Flags().StringVar(&target, "for", "ready", "ready or connected")
	cmd.Flags().DurationVar(&timeout, "timeout", timeout, "how long to wait")
	return cmd
}

func (c *cli) waitFor(cmd *verb.Command, client *control.Client, target string, timeout time.Duration) error {
	began, said := time.Now(), false
	last := "nothing answers on " + client.Path
	for {
		left := timeout - time.Since(began)
		if left <= 0 {
			return control.NewFault(control.ExitTimeout, "wait-timeout", "postern status", "wait: not %s after %s: %s", target, timeout, last)
		}
		if !said && time.Since(began) > 2*time.Second {
			said = true
			c.say("waiting for %s, at most %s: %s", target, timeout, last)
		}
		st, err := askState(cmd.Context(), client, target, min(left, 2*time.Second))
		switch {
		case err == nil && (target == "ready" || st.State == lifecycle.Connected):
			return nil
		case err == nil:
			last = fmt.Sprintf("the state is %s", st.State)
		case errors.Is(err, control.ErrNotRunning):
		case control.AsFault(err).Exit != control.ExitFailed: // a refusal, which no waiting changes
			return err
		default:
			last = fmt.Sprintf("no answer on %s: %v", client.Path, err)
		}
		if err != nil && !pause(cmd.Context(), 100*time.Millisecond) {
			return cmd.Context().Err()
		}
	}
}

// askState is answered at once by an agent that is ready; the state may come
// later. One that hangs does not answer at all.
func askState(ctx context.Context, client *control.Client, target string, limit time.Duration) (control.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if target == "ready" {
		return client.Status(ctx)
	}
	return client.Wait(ctx, limit/2, lifecycle.Connected)
}
