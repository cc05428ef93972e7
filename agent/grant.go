package main

import (
	"strings"

	"postern/agent/config"
	"postern/agent/control"
	"postern/agent/verb"
	"postern/platform"
)

// grantVerb writes nothing: the configuration belongs to its author, and
// membership in a group to the system's own tools.
func (c *cli) grantVerb() *verb.Command {
	var identity string
	var resources []string
	long, example := manual("Print what lets somebody have tokens: the command that makes a user a member of the token group, or with --resource the [[grant]] table for the configuration.",
		[]string{"postern grant telemetry", "postern grant user:telemetry --resource https://vault.azure.net"}, "0 printed; 2 usage")
	cmd := &verb.Command{
		Use: "grant WHO", Short: "Print what lets somebody have tokens", Long: long, Example: example, Args: verb.ExactArgs(1),
		RunE: func(_ *verb.Command, args []string) error {
			cfg, err := c.loadConfig()
			if err != nil {
				return err
			}
			who := granted(args[0])
			if len(resources) == 0 {
				name, err := c.member("grant", cfg, who)
				if err == nil {
					c.print("sudo usermod -aG %s %s   # then log in again, or restart the service", quoted(cfg.Group), quoted(name))
				}
				return err
			}
			c.say("add to %s, then: sudo systemctl reload postern   # or send SIGHUP", orWord(cfg.Path(), defaultHost.Config))
			c.print("[[grant]]\nwho = %q\nidentity = %q\nresources = [%s]", who, identity, quotedList(resources))
			return nil
		},
	}
	cmd.Flags().StringVar(&identity, "identity", "system", "client `id`, or system")
	verb.ListVar(cmd.Flags(), &resources, "resource", "what it may ask for, exact or with a star at the end; may be repeated")
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

// revokeVerb is the way back, and writes nothing either.
func (c *cli) revokeVerb() *verb.Command {
	long, example := manual("Print what takes tokens from a user: the command that ends its membership in the token group, and where the configuration names it.",
		[]string{"postern revoke telemetry", "postern revoke telemetry --config /tmp/postern.toml"}, "0 printed; 2 usage")
	return &verb.Command{
		Use: "revoke USER", Short: "Print what takes tokens from a user", Long: long, Example: example, Args: verb.ExactArgs(1),
		RunE: func(_ *verb.Command, args []string) error {
			cfg, err := c.loadConfig()
			if err != nil {
				return err
			}
			who := granted(args[0])
			name, err := c.member("revoke", cfg, who)
			if err != nil {
				return err
			}
			c.print("sudo gpasswd -d %s %s   # then end what it runs: a process keeps the groups that it began with", quoted(name), quoted(cfg.Group))
			for _, g := range cfg.Grants {
				if g.Who == who || g.Who == "user:"+name {
					c.say("%s has a [[grant]] for it: take that out, then: sudo systemctl reload postern   # or send SIGHUP", cfg.Path())
				}
			}
			return nil
		},
	}
}

// member is the name of a user as the system's tools take it: a refusal knows a
// number, and they take names alone. Nothing but a user is in a group.
func (c *cli) member(verb string, cfg config.Config, who string) (string, error) {
	form, name, _ := strings.Cut(who, ":")
	switch form {
	case "user":
		return name, nil
	case "uid":
		host, err := newHost(hostOptions(cfg, newLog(cfg, c.stderr, c.complete)))
		if err != nil {
			return "", hostFault(err)
		}
		if name = host.UserName(platform.Peer(who)); name == "" {
			return "", control.NewFault(control.ExitUsage, "unknown-account", "postern grant "+who+" --resource https://vault.azure.net   # the table for the configuration",
				"%s: no account of this machine has the number in %s, so that none can be a member of %s; a grant names the number itself", verb, who, cfg.Group)
		}
		return name, nil
	}
	return "", control.NewFault(control.ExitUsage, "usage", "postern grant "+quoted(who)+" --resource https://vault.azure.net   # the table for the configuration",
		"%s: %s is not a user, and only users are members of a group", verb, who)
}

func quotedList(list []string) string {
	quoted := make([]string, 0, len(list))
	for _, s := range list {
		quoted = append(quoted, `"`+s+`"`)
	}
	return strings.Join(quoted, ", ")
}
