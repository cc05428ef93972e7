package main

import (
	"github.com/spf13/cobra"

	"postern/agent/control"
)

func (c *cli) completionVerb() *cobra.Command {
	long, example := manual("Print a completion script.", []string{"postern completion bash | sudo tee /usr/share/bash-completion/completions/postern", "postern completion zsh > ~/.zfunc/_postern"}, "0; 2 unknown shell")
	return &cobra.Command{
		Use: "completion bash|zsh|fish|powershell", Short: "Print a completion script", Long: long, Example: example,
		Args: cobra.ExactArgs(1), ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(c.stdout, true)
			case "zsh":
				return root.GenZshCompletion(c.stdout)
			case "fish":
				return root.GenFishCompletion(c.stdout, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(c.stdout)
			}
			return control.NewFault(control.ExitUsage, "usage", "postern completion bash", "completion: there is none for %q", args[0])
		},
	}
}
