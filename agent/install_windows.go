package main

import (
	"fmt"
	"os"

	"postern/agent/control"
	"postern/agent/verb"
	"postern/platform/windows"
)

func (c *cli) systemVerbs() []*verb.Command { return []*verb.Command{c.installVerb()} }

func (c *cli) installVerb() *verb.Command {
	long, example := manual("Register this program as the service postern, started at boot.", []string{"postern install"}, "0 registered; 1 failed; 7 no administrator")
	return &verb.Command{
		Use: "install", Short: "Register the service", Long: long, Example: example,
		RunE: func(*verb.Command, []string) error {
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
