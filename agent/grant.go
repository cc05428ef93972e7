package main

import (
	"strings"

	"github.com/spf13/cobra"

	"postern/agent/config"
	"postern/agent/control"
	"postern/platform"
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
			who := granted(args[0])
			if len(resources) == 0 {
				return c.printMembership(cfg, who)
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

// granted is who a grant means by a bare name or number.
func granted(who string) string {
	switch {
	case strings.Contains(who, ":"):
		return who
	case who != "" && strings.Trim(who, "0123456789") == "":
		return "uid:" + who
	}
	return "user:" + who
}

// printMembership prints how a user becomes a member of the token group. A
// refusal knows a number, and usermod takes names alone.
func (c *cli) printMembership(cfg config.Config, who string) error {
	form, name, _ := strings.Cut(who, ":")
	switch form {
	case "user":
	case "uid":
		host, err := newHost(hostOptions(cfg, newLog(cfg, c.stderr, c.complete)))
		if err != nil {
			return hostFault(err)
		}
		if name = host.UserName(platform.Peer(who)); name == "" {
			return control.NewFault(control.ExitUsage, "unknown-account", "postern grant "+who+" --resource RESOURCE",
				"grant: no account of this machine has the number in %s, so that none can become a member of %s; a grant names the number itself", who, cfg.Group)
		}
	default:
		return control.NewFault(control.ExitUsage, "usage", "postern grant "+who+" --resource RESOURCE",
			"grant: %s is no user, so that it cannot become a member of %s; a grant names it itself", who, cfg.Group)
	}
	c.print("sudo usermod -aG %s %s   # then log in again, or restart the service", cfg.Group, name)
	return nil
}

func quotedList(list []string) string {
	quoted := make([]string, 0, len(list))
	for _, s := range list {
		quoted = append(quoted, `"`+s+`"`)
	}
	return strings.Join(quoted, ", ")
}
