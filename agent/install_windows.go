package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"postern/agent/control"
	"postern/platform/windows"
)

func (c *cli) systemVerbs() []*cobra.Command { return []*cobra.Command{c.installVerb()} }

func (c *cli) installVerb() *cobra.Command {
	long, example := manual("Register this program as the service postern, started at boot.", []string{"postern install"}, "0 registered; 1 failed; 7 no administrator")
	return &cobra.Command{
		Use: "install", Short: "Register the service", Long: long, Example: example,
		RunE: func(*cobra.Command, []string) error {
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("install: %w", err)
			}
			if err := windows.InstallService(self, "run", "--service"); err != nil {
				return control.NewFault(control.ExitFailed, "install", "sc.exe query postern", "install: %w", err)
			}
			c.print("registered the service postern: %s run --service", self)
			c.say("next: sc.exe start postern")
			return nil
		},
	}
}
