package main

import (
	"context"
	"errors"
	"strings"

	"postern/agent/control"
	"postern/agent/verb"
)

func (c *cli) tokenVerb() *verb.Command {
	var req control.TokenRequest
	long, example := manual("Print a token as the endpoint would give it to this user.",
		[]string{"postern token --resource https://vault.azure.net", "postern token --resource https://management.azure.com/ --refresh --json"},
		"0 printed; 3 no agent runs; 4, 5, 6, 9, 11, 12 the identity's state is why there is none; 7 not permitted; 8 no answer in time")
	cmd := &verb.Command{
		Use: "token --resource RESOURCE", Short: "Print a token", Long: long, Example: example,
		RunE: func(cmd *verb.Command, _ []string) error {
			if req.Resource == "" {
				return control.NewFault(control.ExitUsage, "usage", "postern token --resource https://vault.azure.net", "token: --resource is missing")
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			var answer control.TokenAnswer
			err = c.within(cmd.Context(), "token", func(ctx context.Context) (err error) {
				answer, err = client.Token(ctx, req)
				return err
			})
			var fault *control.Fault
			if errors.As(err, &fault) {
				fault.Fix = strings.ReplaceAll(fault.Fix, "RESOURCE", quoted(req.Resource))
			}
			if err != nil {
				return err
			}
			if c.json {
				return c.printDocument("token", answer)
			}
			c.print("%s", answer.AccessToken)
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&req.Resource, "resource", "", "what the token is for, such as https://vault.azure.net")
	flags.StringVar(&req.ClientID, "client-id", "", "client `id` of a user-assigned identity")
	flags.BoolVar(&req.Refresh, "refresh", false, "go past the cache, at most once a minute: shows changed roles at once")
	c.waits(cmd)
	return cmd
}
