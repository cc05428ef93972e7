package main

import (
	"context"
	"errors"

	"postern/agent/verb"
)

func (c *cli) auditVerb() *verb.Command {
	var follow, verify bool
	var from uint64
	long, example := manual("Show who took which token: one JSON record a line, oldest first.",
		[]string{"sudo postern audit", "sudo postern audit --verify"}, "0 shown; 1 the chain is broken; 3 no agent runs; 7 not permitted")
	cmd := &verb.Command{
		Use: "audit", Short: "Show who took which token", Long: long, Example: example,
		RunE: func(cmd *verb.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			if verify {
				return c.within(cmd.Context(), "audit", func(ctx context.Context) error { return c.verifyAudit(ctx, client) })
			}
			show := func(ctx context.Context) error {
				return client.Audit(ctx, from, follow, func(line []byte) error {
					_, werr := c.stdout.Write(append(line, '\n'))
					return werr
				})
			}
			if !follow {
				return c.within(cmd.Context(), "audit", show)
			}
			err = show(cmd.Context())
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "wait for new records")
	cmd.Flags().BoolVar(&verify, "verify", false, "walk the chain of digests instead of printing")
	c.waits(cmd)
	cmd.Flags().Uint64Var(&from, "from", 0, "first sequence `number`")
	return cmd
}
