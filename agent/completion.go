package main

import (
	"strings"

	"postern/agent/control"
	"postern/agent/verb"
)

func (c *cli) completionVerb() *verb.Command {
	long, example := manual("Print a completion script.", []string{"postern completion bash | sudo tee /usr/share/bash-completion/completions/postern", "postern completion zsh > ~/.zfunc/_postern"}, "0; 2 unknown shell")
	return &verb.Command{
		Use: "completion bash|zsh|fish|powershell", Short: "Print a completion script", Long: long, Example: example,
		Args: verb.ExactArgs(1), ValidArgs: verb.Shells(),
		RunE: func(_ *verb.Command, args []string) error {
			script := verb.Script(args[0], "postern")
			if script == "" {
				return control.NewFault(control.ExitUsage, "usage", "postern completion bash", "completion: there is none for %q", args[0])
			}
			c.print("%s", strings.TrimSuffix(script, "\n"))
			return nil
		},
	}
}
