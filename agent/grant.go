package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// grantVerb writes nothing: the configuration belongs to its author, and
// membership in a group to the system's own tools.
func (c *cli) grantVerb() *cobra.Command {
	var identity string
	var resources []string
	long, example := manual("Print what lets somebody have tokens: the command that makes a user a member of the token group, or with --resource the [[grant]] table for the configuration.",
		[]string{"postern grant telemetry", "postern grant user:telemetry --resource https://vault.azure.net"}, "0 printed; 2 usage")
	cmd := &cobra.Command{
		Use: "grant WHO", Short: "Print what lets somebody have tokens", Long: long, Example: example, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			cfg, err := c.loadConfig()
			if err != nil {
				return err
			}
			name := strings.TrimPrefix(args[0], "user:")
			if len(resources) == 0 {
				c.print("sudo usermod -aG %s %s   # then log in again, or restart the service", cfg.Group, name)
				return nil
			}
			who := args[0]
			if !strings.Contains(who, ":") {
				who = "user:" + who
			}
			c.say("add to %s, then: sudo systemctl reload postern   # or send SIGHUP", orWord(cfg.Path(), defaultHost.Config))
			c.print("[[grant]]\nwho = %q\nidentity = %q\nresources = [%s]", who, identity, quotedList(resources))
			return nil
		},
	}
	cmd.Flags().StringVar(&identity, "identity", "system", "client `id`, or system")
	cmd.Flags().StringSliceVar(&resources, "resource", nil, "what it may ask for, exact or with a star at the end; may be repeated")
	return cmd
}

func quotedList(list []string) string {
	quoted := make([]string, 0, len(list))
	for _, s := range list {
		quoted = append(quoted, `"`+s+`"`)
	}
	return strings.Join(quoted, ", ")
}
