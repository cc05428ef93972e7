package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"postern/agent/control"
	"postern/agent/verb"
)

// cli is one invocation: its streams and the flags that mean the same in every verb.
type cli struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	config                          string
	stateDir, tokensDir, runtimeDir string
	json, verbose, noColor          bool
	deaf                            []string      // variables that are not heard
	timeout                         time.Duration // how long to wait for an answer; zero: as usual
	args                            []string      // as given
	called                          string        // the program, as it was called
	authorityDir                    *string       // --dir of the authority verbs

	beforeDrop func(context.Context) error // what only root can begin, before it becomes another account; nil: nothing
}

// root builds the verb table.
func (c *cli) root() *verb.Command {
	root := &verb.Command{
		Use:   "postern",
		Short: "Identity for every program on this device, online and offline",
		Long:  "Postern gives every program on this device an identity without a secret in its code.\nIt answers the localhost protocols that Azure programs speak, online and offline.",
	}
	flags := root.PersistentFlags()
	flags.StringVar(&c.config, "config", "", "configuration `file` (default /etc/postern/postern.toml, or $POSTERN_CONFIG)")
	flags.StringVar(&c.stateDir, "state-dir", "", "`directory` of the databases")
	flags.StringVar(&c.tokensDir, "tokens-dir", "", "`directory` of the challenge files")
	flags.StringVar(&c.runtimeDir, "runtime-dir", "", "`directory` of the control socket")
	flags.BoolVar(&c.json, "json", false, "data as JSON, one document a line")
	flags.BoolVar(&c.noColor, "no-color", false, "plain text, as with $NO_COLOR")
	flags.BoolVarP(&c.verbose, "verbose", "v", false, "show causes")
	root.SetFlagErrorFunc(func(cmd *verb.Command, err error) error {
		return control.NewFault(control.ExitUsage, "usage", cmd.CommandPath()+" --help", "%s: %w%s",
			verbOf(cmd), err, nearestFlag(cmd, err))
	})
	root.AddCommand(c.verbs()...)
	root.AddCommand(verb.HelpVerb(func(group *verb.Command, args []string) error {
		return wrongArgs(group, args, verb.NoArgs(group, args))
	}))
	for _, cmd := range allCommands(root) {
		wrapArgs(cmd)
	}
	return root
}

func (c *cli) verbs() []*verb.Command {
	return append([]*verb.Command{
		c.devVerb(), c.runVerb(), c.connectVerb(), c.reconnectVerb(), c.disconnectVerb(),
		c.statusVerb(), c.checkVerb(), c.tokenVerb(), c.identityVerb(), c.renewVerb(), c.waitVerb(),
		c.envVerb(), c.grantVerb(), c.revokeVerb(), c.auditVerb(), c.resetVerb(), c.adoptVerb(), c.configVerb(), c.authorityVerb(),
		c.storeVerb(), c.versionVerb(), c.completionVerb(),
	}, c.systemVerbs()...)
}

func allCommands(root *verb.Command) []*verb.Command {
	all := []*verb.Command{root}
	for _, child := range root.Commands() {
		all = append(all, allCommands(child)...)
	}
	return all
}

// wrapArgs turns a wrong number of arguments or an unknown verb into a usage error.
func wrapArgs(cmd *verb.Command) {
	check := cmd.Args
	if check == nil {
		check = verb.NoArgs
	}
	cmd.Args = func(cmd *verb.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return wrongArgs(cmd, args, err)
		}
		return nil
	}
}

func wrongArgs(cmd *verb.Command, args []string, err error) error {
	return control.NewFault(control.ExitUsage, "usage", cmd.CommandPath()+" --help", "%s: %w%s", verbOf(cmd), err, nearestVerb(cmd, args))
}

// nearestVerb suggests the verb that an unknown one was probably meant to be:
// one that it begins, or one that differs in two letters.
func nearestVerb(cmd *verb.Command, args []string) string {
	if len(args) == 0 {
		return ""
	}
	var names []string
	for _, v := range cmd.Commands() {
		if v.Hidden {
			continue
		}
		if names = append(names, v.Name()); strings.HasPrefix(v.Name(), args[0]) {
			return fmt.Sprintf(" (did you mean %s?)", v.Name())
		}
	}
	if near := closest(names, args[0], 3); near != "" {
		return fmt.Sprintf(" (did you mean %s?)", near)
	}
	return ""
}

// verbOf is the verb as errors name it: "token", "authority claim".
func verbOf(cmd *verb.Command) string {
	if name := strings.TrimPrefix(cmd.CommandPath(), "postern "); name != "postern" {
		return name
	}
	return "usage"
}

// nearestFlag suggests the flag that an unknown one was probably meant to be.
func nearestFlag(cmd *verb.Command, err error) string {
	_, unknown, found := strings.Cut(err.Error(), "unknown flag: --")
	if !found {
		return ""
	}
	var names []string
	for _, word := range strings.Fields(cmd.Flags().FlagUsages()) {
		if name, isFlag := strings.CutPrefix(word, "--"); isFlag {
			names = append(names, name)
		}
	}
	best := closest(names, unknown, 4)
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean --%s?)", best)
}

func (c *cli) printJSON(v any) error { return json.NewEncoder(c.stdout).Encode(v) }

// printDocument prints an object with its schema as the first key, for what
// does not carry one itself because it is a part of other documents, too.
func (c *cli) printDocument(name string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.printJSON(json.RawMessage(`{"schema":"postern.` + name + `/1",` + strings.TrimPrefix(string(raw), "{")))
}

// say writes words for a person; with --json stdout carries data alone, and
// words go to stderr in any case.
func (c *cli) say(format string, args ...any) { _, _ = fmt.Fprintf(c.stderr, format+"\n", args...) }

// tick reports one step of a longer verb.
func (c *cli) tick(step string) { c.say("✓ %s", step) }

// next says what to do now.
func (c *cli) next(command string) { c.say("next: %s", c.complete(command)) }

// print writes data to stdout.
func (c *cli) print(format string, args ...any) { _, _ = fmt.Fprintf(c.stdout, format+"\n", args...) }

// manual is a verb's help: a sentence, two examples and its exit codes.
func manual(what string, examples []string, exits string) (long, example string) {
	return what + "\n\nExit codes: " + exits + ".", "  " + strings.Join(examples, "\n  ")
}
