package main

import (
	"context"
	"errors"
	"strings"

	"postern/agent/control"
	"postern/agent/verb"
	"postern/platform/linux/install"
)

func (c *cli) uninstallVerb() *verb.Command {
	var f installFlags
	var purge, yes bool
	long, example := manual("Stop the agent and take away what install made, as it was left: what somebody edited stays. The identity stays too, unless --purge.",
		[]string{"sudo postern uninstall --dry-run", "sudo postern uninstall --purge"}, "0 removed, or nothing was installed; 1 failed, or --purge of an enrolled device; 7 not root")
	cmd := &verb.Command{
		Use: "uninstall", Short: "Take the agent off this system", Long: long, Example: example,
		RunE: func(cmd *verb.Command, _ []string) error { return c.uninstall(cmd.Context(), f, purge, yes) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.root, "root", "/", "`directory` of another system's tree")
	flags.BoolVar(&f.dryRun, "dry-run", false, "only say what would be done")
	flags.BoolVar(&purge, "purge", false, "remove the state directory and the account, too")
	flags.BoolVar(&yes, "yes", false, "purge although the authority still knows this device")
	return cmd
}

func (c *cli) uninstall(ctx context.Context, f installFlags, purge, yes bool) error {
	m, err := install.Installed(f.root)
	if err != nil {
		return installFault("uninstall", err)
	}
	p, err := install.Remove(install.Options{Root: f.root}, purge, install.PartAgent, install.PartDiscovery)
	if err != nil {
		return installFault("uninstall", err)
	}
	if len(p.Steps) == 0 {
		c.say("nothing was installed by postern install; a package is removed by the tool that brought it")
		if !f.dryRun { // tidies up after a run that was stopped
			if err := p.Take(nil, c.tellStep); err != nil {
				return err
			}
		}
		return c.showPlan(p, f, m.Init, "")
	}
	state := c.stateIn(f.root)
	enrolled := install.Enrolled(f.root, state)
	if enrolled && purge && !yes {
		return control.NewFault(control.ExitFailed, "still-enrolled", "sudo postern disconnect   # or only here: sudo postern uninstall --purge --yes",
			"uninstall: nothing was changed: this device is still enrolled, and its record at the authority would stay")
	}
	live := install.Live{Init: m.Init, Running: f.root == "/" && initFound{install.Detect("/")}.runs(m.Init), Service: m.Service, Binary: m.Binary}
	if f.dryRun {
		p.Later(append(live.Stop(p), live.Forget()...))
		return c.showPlan(p, f, m.Init, "")
	}
	if err := needRoot("uninstall", f.root); err != nil {
		return err
	}
	if err := c.takeAway(ctx, p, live, f.root); errors.Is(err, install.ErrInUse) {
		return control.NewFault(control.ExitFailed, "agent-runs", stopAgent+again(), "%w", err)
	} else if err != nil {
		return control.NewFault(control.ExitFailed, "uninstall", again()+"   # completes what was begun", "%w", err)
	}
	next := ""
	if enrolled && (!purge || state != defaultHost.State) {
		next = "the identity is kept in " + state + "; the authority still knows this device (sudo postern disconnect would have told it)"
	}
	return c.showPlan(p, f, m.Init, next)
}

// stateIn is the state directory of the system in the tree. A configuration
// that cannot be read keeps nobody from uninstalling.
func (c *cli) stateIn(root string) string {
	if cfg, err := c.configIn(root); err == nil && cfg.StateDir != "" {
		return cfg.StateDir
	}
	return defaultHost.State
}

// takeAway stops the agent, removes the files and makes init forget them.
func (c *cli) takeAway(ctx context.Context, p *install.Plan, live install.Live, root string) error {
	var account func(string) error
	if root == "/" {
		account = func(name string) error { return live.RemoveAccount(ctx, name) }
	}
	if err := live.Do(ctx, live.Stop(p), c.tellStep); err != nil {
		return err
	}
	if live.Running && strings.HasPrefix(live.Init, "inittab") || live.Init == "busybox" && live.Running {
		if err := p.TakeLines(c.tellStep); err != nil {
			return err
		}
		if err := live.Do(ctx, live.Forget(), c.tellStep); err != nil {
			return err
		}
		if err := live.End(ctx); err != nil {
			return err
		}
	}
	if root == "/" && !live.Running { // started by somebody else, who will find no program any more
		if err := live.End(ctx); err != nil {
			return err
		}
	}
	if err := p.Take(account, c.tellStep); err != nil {
		return err
	}
	return live.Do(ctx, live.Forget(), c.tellStep)
}
