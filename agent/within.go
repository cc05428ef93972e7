package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"postern/agent/control"
	"postern/agent/verb"
)

const (
	usualWait = 30 * time.Second // for an answer, unless --timeout says otherwise
	longWait  = 2 * time.Second  // after which a verb says what it waits for
)

// waits gives verbs that ask the agent a --timeout.
func (c *cli) waits(verbs ...*verb.Command) {
	for _, cmd := range verbs {
		if !strings.Contains(cmd.Long, "; 8 ") {
			cmd.Long = strings.TrimSuffix(cmd.Long, ".") + "; 8 no answer in time."
		}
		cmd.Flags().DurationVar(&c.timeout, "timeout", usualWait, "how long to wait for an answer of the agent")
	}
}

// within bounds how long verb waits for the agent, and says that it waits. An
// agent that was asked to change something goes on with it.
func (c *cli) within(ctx context.Context, verb string, ask func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	timer := time.AfterFunc(longWait, func() { c.say("waiting for the agent, at most %s", c.timeout) })
	defer timer.Stop()
	err := ask(bounded)
	if err == nil || ctx.Err() != nil || !errors.Is(bounded.Err(), context.DeadlineExceeded) {
		return err
	}
	var fault *control.Fault
	if errors.As(err, &fault) && fault.Exit == control.ExitInterrupted {
		return control.NewFault(control.ExitTimeout, "timeout", "postern status   # shows what became of it",
			"%s: not done after %s, and the agent goes on with it", verb, c.timeout)
	}
	return control.NewFault(control.ExitTimeout, "timeout", "sudo systemctl restart postern   # or as your init system does; or wait longer, with --timeout",
		"%s: the agent does not answer within %s", verb, c.timeout)
}
