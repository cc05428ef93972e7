package main

import (
	"fmt"

	"postern/platform/linux/install"
)

// installDocument is the plan as data.
type installDocument struct {
	Schema string         `json:"schema"`
	Root   string         `json:"root"`
	Init   string         `json:"init,omitempty"`
	DryRun bool           `json:"dry_run"`
	Steps  []install.Step `json:"steps"`
	Next   string         `json:"next,omitempty"`
}

func (c *cli) showPlan(p *install.Plan, f installFlags, init, next string) error {
	if c.json {
		steps := append([]install.Step{}, p.Steps...) // a list, also when it is empty
		return c.printJSON(installDocument{Schema: "postern.install/1", Root: f.root, Init: init, DryRun: f.dryRun, Steps: steps, Next: next})
	}
	if f.dryRun {
		for _, s := range p.Steps {
			c.tellStep(s)
		}
		c.say("nothing was changed: --dry-run")
	}
	if next != "" {
		c.say("next: %s", next)
	}
	return nil
}

// tellStep prints one step for a person.
func (c *cli) tellStep(s install.Step) {
	if c.json {
		return
	}
	line := fmt.Sprintf("%-10s %-9s %s", s.Do, s.Kind, s.Path)
	if s.Target != "" {
		line += " -> " + s.Target
	}
	if s.Mode != "" {
		line += "  (" + s.Owner + " " + s.Mode + ")"
	}
	if s.Note != "" {
		line += "  # " + s.Note
	}
	c.print("%s", line)
}

// nextAfterInstall is the one command to go on with.
func nextAfterInstall(f installFlags, live install.Live) string {
	switch {
	case f.root != "/":
		return "boot it, then: sudo postern connect --claim-file CLAIM"
	case !live.Running:
		return "sudo reboot   # " + live.Init + " does not run here, so nothing was started"
	}
	return "sudo postern connect --claim-file CLAIM   # or without any account: sudo postern dev"
}
