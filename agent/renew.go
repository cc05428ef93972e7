package main

import (
	"postern/agent/control"
	"postern/agent/verb"
)

func (c *cli) renewVerb() *verb.Command {
	var clientID string
	long, example := manual("Renew the certificate now and print each step. The working certificate is kept if it does not succeed.",
		[]string{"sudo postern renew", "sudo postern renew --client-id 7b1e4c1c-5d0a-4a9b-9d2a-3f1f7c9c1a11"}, "0 renewed; 1 failed; 3 no agent runs; 5 Expired")
	cmd := &verb.Command{
		Use: "renew", Short: "Renew the certificate now", Long: long, Example: example,
		RunE: func(cmd *verb.Command, _ []string) error {
			running, err := c.viaAgent(cmd.Context(), "renew", map[string]string{"client_id": clientID})
			if !running {
				return notRunning("renew")
			}
			return err
		},
	}
	c.waits(cmd)
	cmd.Flags().StringVar(&clientID, "client-id", "", "client `id` of one identity; all of them if absent")
	return cmd
}

func notRunning(verb string) error {
	return control.NewFault(control.ExitNotRunning, "not-running", "sudo postern run   # or: sudo systemctl start postern",
		"%s: %w", verb, control.ErrNotRunning)
}
