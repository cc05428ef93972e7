package verb

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

// Help prints what the verb does and how it is called.
func (c *Command) Help() error {
	_, err := io.WriteString(c.Root().out, c.help())
	return err
}

// HelpVerb is "help VERB". unknown makes the error for a verb that is none.
func HelpVerb(unknown func(cmd *Command, args []string) error) *Command {
	return &Command{
		Use: "help [VERB]", Short: "Help about any verb",
		Args: func(*Command, []string) error { return nil },
		RunE: func(cmd *Command, args []string) error {
			found, _, rest := cmd.Root().find(args)
			if len(rest) > 0 {
				return unknown(found, rest)
			}
			return found.Help()
		},
	}
}

func (c *Command) help() string {
	var text strings.Builder
	about := c.Long
	if about == "" {
		about = c.Short
	}
	text.WriteString(strings.TrimSpace(about) + "\n\nUsage:\n")
	local, inherited := c.localFlags(), c.inherited()
	if c.RunE != nil || !c.HasSubCommands() {
		text.WriteString("  " + strings.TrimSuffix(c.CommandPath(), c.Name()) + c.Use + " [flags]\n")
	}
	if c.HasSubCommands() {
		text.WriteString("  " + c.CommandPath() + " [command]\n")
	}
	if len(c.Aliases) > 0 {
		text.WriteString("\nAliases:\n  " + c.Name() + ", " + strings.Join(c.Aliases, ", ") + "\n")
	}
	if c.Example != "" {
		text.WriteString("\nExamples:\n" + c.Example + "\n")
	}
	if c.HasSubCommands() {
		text.WriteString("\nAvailable Commands:\n")
		for _, v := range c.children {
			if !v.Hidden {
				fmt.Fprintf(&text, "  %-*s %s\n", c.widest(), v.Name(), v.Short)
			}
		}
	}
	for _, part := range []struct {
		title string
		flags *pflag.FlagSet
	}{{"Flags", local}, {"Global Flags", inherited}} {
		if usages := strings.TrimRight(part.flags.FlagUsages(), " \n"); usages != "" {
			text.WriteString("\n" + part.title + ":\n" + usages + "\n")
		}
	}
	if c.HasSubCommands() {
		text.WriteString("\nUse \"" + c.CommandPath() + " [command] --help\" for more information about a command.\n")
	}
	return text.String()
}

// widest is the room that the names of the verbs take in a list.
func (c *Command) widest() int {
	most := 11
	for _, v := range c.children {
		if !v.Hidden {
			most = max(most, len(v.Name()))
		}
	}
	return most
}

// localFlags are the verb's flags without those of the groups above.
func (c *Command) localFlags() *pflag.FlagSet {
	above := c.inherited()
	local := newFlags(c.Name())
	c.allFlags().VisitAll(func(f *pflag.Flag) {
		if above.Lookup(f.Name) != f {
			local.AddFlag(f)
		}
	})
	return local
}
