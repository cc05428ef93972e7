// Package verb is the tree of a program's verbs: it finds the one that a
// command line means, reads its flags, and prints help and completions.
//
// Flags are those of pflag, in the GNU manner, and may stand before, behind and
// between the arguments. See firmware-notes/decisions/008-own-verbs.md.
package verb

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Command is one verb, or a group of verbs. The zero value of every field but
// Use is a sensible one.
type Command struct {
	Use     string // its name, and its arguments as the usage line shows them
	Short   string // a sentence without its point, for lists
	Long    string // for its own help; Short if empty
	Example string
	Aliases []string

	// ValidArgs are what completion offers as the first argument.
	ValidArgs []string
	// Hidden leaves it out of lists and completion.
	Hidden bool
	// Args judges the arguments; nil wants none.
	Args Args
	// RunE does the work; nil prints the help.
	RunE func(cmd *Command, args []string) error

	parent          *Command
	children        []*Command
	own, persistent *pflag.FlagSet
	ctx             context.Context
	out             io.Writer
	flagError       func(*Command, error) error
}

// Args judges the arguments of a verb, what is left of a command line without
// verbs and flags.
type Args func(cmd *Command, args []string) error

// NoArgs wants no argument.
func NoArgs(cmd *Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
	}
	return nil
}

// ExactArgs wants n arguments.
func ExactArgs(n int) Args {
	return func(_ *Command, args []string) error {
		if len(args) != n {
			return fmt.Errorf("accepts %d arg(s), received %d", n, len(args))
		}
		return nil
	}
}

// MaximumNArgs wants at most n arguments.
func MaximumNArgs(n int) Args {
	return func(_ *Command, args []string) error {
		if len(args) > n {
			return fmt.Errorf("accepts at most %d arg(s), received %d", n, len(args))
		}
		return nil
	}
}

// AddCommand makes verbs of a group.
func (c *Command) AddCommand(verbs ...*Command) {
	for _, v := range verbs {
		v.parent = c
		c.children = append(c.children, v)
	}
	slices.SortFunc(c.children, func(a, b *Command) int { return cmp.Compare(a.Name(), b.Name()) })
}

// Commands are the verbs of a group, by name.
func (c *Command) Commands() []*Command { return slices.Clone(c.children) }

// HasSubCommands tells a group from a verb.
func (c *Command) HasSubCommands() bool { return len(c.children) > 0 }

// Name is the first word of Use.
func (c *Command) Name() string {
	name, _, _ := strings.Cut(c.Use, " ")
	return name
}

// Root is the program.
func (c *Command) Root() *Command {
	for c.parent != nil {
		c = c.parent
	}
	return c
}

// CommandPath is how the verb is called: "postern authority claim".
func (c *Command) CommandPath() string {
	if c.parent == nil {
		return c.Name()
	}
	return c.parent.CommandPath() + " " + c.Name()
}

// Context is that of Run.
func (c *Command) Context() context.Context { return c.Root().ctx }

// Flags are the verb's own flags and, once a command line was read, those of
// the groups above it.
func (c *Command) Flags() *pflag.FlagSet {
	if c.own == nil {
		c.own = newFlags(c.Name())
		c.own.BoolP("help", "h", false, "help for "+c.Name())
	}
	return c.own
}

// PersistentFlags are flags of the group that all of its verbs have.
func (c *Command) PersistentFlags() *pflag.FlagSet {
	if c.persistent == nil {
		c.persistent = newFlags(c.Name())
	}
	return c.persistent
}

func newFlags(name string) *pflag.FlagSet {
	f := pflag.NewFlagSet(name, pflag.ContinueOnError)
	f.SetOutput(io.Discard) // errors are returned
	f.Usage = func() {}
	return f
}

// SetFlagErrorFunc says on the root what becomes of the error of a wrong flag.
func (c *Command) SetFlagErrorFunc(f func(*Command, error) error) { c.flagError = f }

// Run does what args, the command line without the program's name, asks for.
// Help and completions go to out. It is called on the root.
func (c *Command) Run(ctx context.Context, args []string, out io.Writer) error {
	c.ctx, c.out = ctx, out
	if len(args) > 0 && args[0] == completeVerb {
		c.complete(args[1:])
		return nil
	}
	found, before, rest := c.find(args)
	flags := found.allFlags()
	if err := flags.Parse(slices.Concat(before, rest)); err != nil {
		if c.flagError != nil {
			err = c.flagError(found, err)
		}
		return err
	}
	if help, err := flags.GetBool("help"); err == nil && help {
		return found.Help()
	}
	check := found.Args
	if check == nil {
		check = NoArgs
	}
	if err := check(found, flags.Args()); err != nil {
		return err
	}
	if found.RunE == nil {
		return found.Help()
	}
	return found.RunE(found, flags.Args())
}

// find goes down to the verb that words name. It returns the flags that stand
// among the verbs, with their values, and everything from the first argument on.
func (c *Command) find(words []string) (found *Command, flags, args []string) {
	found = c
	for i := 0; i < len(words); i++ {
		word := words[i]
		if len(word) > 1 && word[0] == '-' && word != "--" {
			flags = append(flags, word)
			if found.takesNext(word) && i+1 < len(words) {
				i++
				flags = append(flags, words[i])
			}
			continue
		}
		child := found.child(word)
		if child == nil {
			return found, flags, words[i:]
		}
		found = child
	}
	return found, flags, nil
}

// child is the verb of that name or alias.
func (c *Command) child(name string) *Command {
	for _, v := range c.children {
		if v.Name() == name || slices.Contains(v.Aliases, name) {
			return v
		}
	}
	return nil
}

// takesNext reports whether the value of a flag is the next word. One that is
// unknown here may be a flag of a verb that follows, with a value.
func (c *Command) takesNext(word string) bool {
	name, long := strings.CutPrefix(word, "--")
	if strings.Contains(word, "=") {
		return false
	}
	all := c.allFlags()
	if long {
		f := all.Lookup(name)
		return f == nil || f.NoOptDefVal == ""
	}
	if len(word) != 2 {
		return false // -xVALUE, or several of one letter
	}
	f := all.ShorthandLookup(word[1:])
	return f == nil || f.NoOptDefVal == ""
}

// allFlags adds the flags of the groups above to the verb's own.
func (c *Command) allFlags() *pflag.FlagSet {
	all := c.Flags()
	all.AddFlagSet(c.PersistentFlags())
	for group := c.parent; group != nil; group = group.parent {
		all.AddFlagSet(group.PersistentFlags())
	}
	return all
}

// inherited are the flags of the groups above.
func (c *Command) inherited() *pflag.FlagSet {
	all := newFlags(c.Name())
	for group := c.parent; group != nil; group = group.parent {
		all.AddFlagSet(group.PersistentFlags())
	}
	return all
}
