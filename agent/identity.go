package main

import (
	"strings"

	"postern/agent/control"
	"postern/agent/verb"
)

func (c *cli) identityVerb() *verb.Command {
	parent := &verb.Command{
		Use: "identity", Short: "The identities on this device",
		RunE: func(cmd *verb.Command, _ []string) error { return cmd.Help() },
	}
	long, example := manual("List the identities on this device.", []string{"postern identity list", "postern identity list --json"}, "0 listed; 3 no agent runs")
	parent.AddCommand(&verb.Command{
		Use: "list", Short: "List them", Long: long, Example: example,
		RunE: func(cmd *verb.Command, _ []string) error {
			st, err := c.status(cmd.Context(), "identity")
			if err != nil {
				return err
			}
			for _, id := range st.Identities {
				if c.json {
					if err := c.printDocument("identity", id); err != nil {
						return err
					}
					continue
				}
				c.print("%s", identityRow(id))
			}
			return nil
		},
	})
	long, example = manual("Show one identity, by name or client id.", []string{"postern identity show telemetry", "postern identity show 7b1e4c1c-5d0a-4a9b-9d2a-3f1f7c9c1a11"}, "0 shown; 1 unknown; 3 no agent runs")
	parent.AddCommand(&verb.Command{
		Use: "show NAME|CLIENT-ID", Short: "Show one", Long: long, Example: example, Args: verb.ExactArgs(1),
		RunE: func(cmd *verb.Command, args []string) error {
			st, err := c.status(cmd.Context(), "identity")
			if err != nil {
				return err
			}
			for _, id := range st.Identities {
				if id.Name == args[0] || strings.EqualFold(id.ClientID, args[0]) {
					return c.printDocument("identity", id)
				}
			}
			return control.NewFault(control.ExitFailed, "unknown-identity", "postern identity list", "identity: there is no %q on this device", args[0])
		},
	})
	c.waits(parent.Commands()...)
	return parent
}

func identityRow(id control.Identity) string {
	row := []string{id.Kind, id.Name, id.State.String(), "client_id=" + id.ClientID}
	if id.ResourceID != "" {
		row = append(row, "resource_id="+id.ResourceID)
	}
	return strings.Join(row, "  ")
}
