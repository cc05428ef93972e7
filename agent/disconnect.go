package main

import (
	"bufio"
	"context"
	"strings"

	"postern/agent/control"
	"postern/agent/verb"
)

func (c *cli) disconnectVerb() *verb.Command {
	var localOnly, yes bool
	long, example := manual("Take this device's identity away: withdraw its certificates at the authority, then destroy its keys here. A later connect gives a new identity.",
		[]string{"sudo postern disconnect", "sudo postern disconnect --local-only --yes"},
		"0 disconnected; 1 failed; 4 there is no identity; 6 the authority cannot be reached; 7 not permitted")
	cmd := &verb.Command{
		Use: "disconnect", Short: "Take this device's identity away", Long: long, Example: example,
		RunE: func(cmd *verb.Command, _ []string) error {
			if err := c.confirm(cmd.Context(), yes, "This destroys the identity's keys. Go on?"); err != nil {
				return err
			}
			body := map[string]bool{"local_only": localOnly}
			running, err := c.viaAgent(cmd.Context(), "disconnect", body)
			if !running {
				err = c.alone(cmd.Context(), func(ctx context.Context, g *graph) error {
					return g.Disconnect(ctx, localOnly, c.tick)
				})
			}
			return err
		},
	}
	c.waits(cmd)
	cmd.Flags().BoolVar(&localOnly, "local-only", false, "destroy the keys here without telling the authority")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// confirm asks unless told not to.
func (c *cli) confirm(ctx context.Context, yes bool, question string) error {
	if yes {
		return nil
	}
	c.say("%s [y/N]", question)
	line, err := bufio.NewReader(interruptible{ctx, c.stdin}).ReadString('\n')
	if ctx.Err() != nil {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return control.NewFault(control.ExitFailed, "not-confirmed", control.AgainWithYes, "nothing was changed")
}
