package main

import (
	"bytes"
	"context"

	"postern/agent/audit"
	"postern/agent/control"
)

// verifyAudit walks the chain of the whole ring.
func (c *cli) verifyAudit(ctx context.Context, client *control.Client) error {
	var chain audit.Chain
	err := client.Audit(ctx, 0, false, func(line []byte) error {
		chain.Add(bytes.Clone(line))
		return nil
	})
	if err != nil {
		return err
	}
	proof := chain.Proof()
	if c.json {
		err = c.printDocument("audit-proof", proof)
	} else {
		c.print("%s", proof.Says())
	}
	if err == nil && !proof.Whole() {
		return exitCode(control.ExitFailed)
	}
	return err
}
