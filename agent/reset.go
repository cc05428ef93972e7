package main

import (
	"context"

	"postern/agent/control"
	"postern/agent/verb"
)

func (c *cli) resetVerb() *verb.Command {
	var cache, enrolment, all, yes bool
	long, example := manual("Remove local state: the cache (tokens, audit), the enrolment (identity and keys; the authority is not told), or both and the secrets of workloads.",
		[]string{"sudo postern reset --cache", "sudo postern reset --all --yes"}, "0 removed; 1 failed; 2 usage; 7 not permitted")
	cmd := &verb.Command{
		Use: "reset", Short: "Remove local state", Long: long, Example: example,
		RunE: func(cmd *verb.Command, _ []string) error {
			what, err := resetTarget(cache, enrolment, all)
			if err != nil {
				return err
			}
			if what != "cache" {
				if err := c.confirm(cmd.Context(), yes, "This destroys the identity's keys. Go on?"); err != nil {
					return err
				}
			}
			running, err := c.viaAgent(cmd.Context(), "reset", map[string]string{"what": what})
			if !running {
				err = c.alone(cmd.Context(), func(ctx context.Context, g *graph) error { return g.Reset(ctx, what, c.tick) })
			}
			return err
		},
	}
	flags := cmd.Flags()
	c.waits(cmd)
	flags.BoolVar(&cache, "cache", false, "tokens and audit records")
	flags.BoolVar(&enrolment, "enrolment", false, "identity and keys: for a copied card or a device that changes hands")
	flags.BoolVar(&all, "all", false, "both, and the secrets of workloads")
	flags.BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func resetTarget(cache, enrolment, all bool) (string, error) {
	switch {
	case all || (cache && enrolment):
		return "all", nil
	case enrolment:
		return "enrolment", nil
	case cache:
		return "cache", nil
	}
	return "", control.NewFault(control.ExitUsage, "usage", "postern reset --help", "reset: say what: --cache, --enrolment or --all")
}

func (c *cli) adoptVerb() *verb.Command {
	var changed bool
	long, example := manual("Keep the identity although the hardware is another one: a board part was replaced. For a copied card use reset --enrolment instead.",
		[]string{"sudo postern adopt --hardware-changed", "sudo postern adopt --hardware-changed && postern status"}, "0 adopted; 2 usage; 4 there is no identity; 7 not permitted")
	cmd := &verb.Command{
		Use: "adopt", Short: "Keep the identity after a board part was replaced", Long: long, Example: example,
		RunE: func(cmd *verb.Command, _ []string) error {
			if !changed {
				return control.NewFault(control.ExitUsage, "usage", "sudo postern adopt --hardware-changed", "adopt: --hardware-changed is missing")
			}
			running, err := c.viaAgent(cmd.Context(), "adopt", struct{}{})
			if !running {
				err = c.alone(cmd.Context(), func(ctx context.Context, g *graph) error { return g.Adopt(ctx, c.tick) })
			}
			return err
		},
	}
	c.waits(cmd)
	cmd.Flags().BoolVar(&changed, "hardware-changed", false, "say that this is the enrolled device with a replaced part")
	return cmd
}
