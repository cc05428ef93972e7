package main

import (
	"postern/agent/config"
	"postern/agent/verb"
)

func (c *cli) configVerb() *verb.Command {
	parent := &verb.Command{
		Use: "config", Short: "Look at the configuration",
		RunE: func(cmd *verb.Command, _ []string) error { return cmd.Help() },
	}
	long, example := manual("Check the configuration file and say what is wrong, by line.", []string{"postern config check", "postern config check --config /tmp/postern.toml"}, "0 valid; 2 not valid")
	parent.AddCommand(&verb.Command{
		Use: "check", Short: "Check the file", Long: long, Example: example,
		RunE: func(*verb.Command, []string) error {
			cfg, err := c.loadConfig()
			if err != nil {
				return err
			}
			c.say("✓ %s", orWord(cfg.Path(), "no configuration file: the defaults"))
			return nil
		},
	})
	var defaults bool
	long, example = manual("Print the effective configuration and where each value comes from, or with --defaults a commented file with every key.",
		[]string{"postern config print", "postern config print --defaults | sudo tee /etc/postern/postern.toml"}, "0 printed; 2 not valid")
	show := &verb.Command{
		Use: "print", Short: "Print the effective configuration", Long: long, Example: example,
		RunE: func(*verb.Command, []string) error {
			cfg, err := config.Load("", nil)
			if !defaults { // those are printed whatever the file says: it may be what is wrong
				cfg, err = c.loadConfig()
			}
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(cfg.Document())
			}
			return cfg.Print(c.stdout, defaults)
		},
	}
	show.Flags().BoolVar(&defaults, "defaults", false, "every key with its default, commented")
	parent.AddCommand(show)
	return parent
}
