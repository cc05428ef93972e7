package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"postern/agent/control"
	"postern/agent/verb"
	"postern/platform/linux/install"
)

func (c *cli) discoveryVerb() *verb.Command {
	long := "Let clients find the agent without being told, or not: the marker files, the variables for services and logins, and the path of the challenges. With it, every Azure program on the device uses Postern."
	cmd := &verb.Command{Use: "discovery", Short: "Let clients find the agent, or not", Long: long}
	cmd.AddCommand(
		c.discoveryChild("on", "Let clients find the agent", "Make the markers and variables by which clients find the agent. What somebody else put there is refused, before anything is changed.", c.discoveryOn),
		c.discoveryChild("off", "Let clients not find the agent", "Take the markers and variables away, and only ours.", c.discoveryOff),
		c.discoveryChild("show", "Show what clients find", "Show what makes clients find the agent, and what is missing.", c.discoveryShow))
	return cmd
}

func (c *cli) discoveryChild(name, short, what string, do func(context.Context, installFlags) error) *verb.Command {
	f := installFlags{uid: -1, gid: -1}
	exits := "0 done; 1 something is in the way; 7 not root"
	prefix := "sudo "
	if name == "show" {
		exits, prefix = "0 shown", ""
	}
	long, example := manual(what, []string{prefix + "postern discovery " + name, prefix + "postern discovery " + name + " --root /mnt/image"}, exits)
	cmd := &verb.Command{
		Use: name, Short: short, Long: long, Example: example,
		RunE: func(cmd *verb.Command, _ []string) error { return do(cmd.Context(), f) },
	}
	cmd.Flags().StringVar(&f.root, "root", "/", "`directory` of another system's tree")
	if name == "on" {
		cmd.Flags().StringVar(&f.tokens, "tokens", "", "link, or mount: a tmpfs of its own, where containers mount the directory above, systemd (default: as it is, else link)")
	}
	if name != "show" {
		cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "only say what would be done")
	}
	return cmd
}

// discoveryOptions say where the program is and which files this system reads.
func (c *cli) discoveryOptions(f installFlags) (install.Options, error) {
	o := install.Options{Root: f.root, Parts: []string{install.PartDiscovery}, UID: -1, GID: -1}
	m, err := install.Installed(f.root)
	if err != nil {
		return o, installFault("discovery", err)
	}
	o.Mount = mounted(f, m)
	if m.Stands() {
		o.Init, o.To = m.Init, m.Binary
	} else if o.To, err = programIn(f.root); err != nil {
		return o, err
	}
	if o.Init == "" {
		o.Init = install.Detect(f.root).Init
	}
	o.Arc, err = c.arcAddress(f.root)
	return o, err
}

// mounted reports whether the token directory is to be a mount.
func mounted(f installFlags, m install.Manifest) bool {
	return f.tokens == "mount" || f.tokens == "" && m.Mounted()
}

// programIn is the program that a package put into the tree, or this one.
func programIn(root string) (string, error) {
	for _, path := range []string{"/usr/bin/postern", "/usr/local/bin/postern"} {
		if !missingFile(filepath.Join(root, path)) {
			return path, nil
		}
	}
	if self, err := os.Executable(); err == nil && root == "/" {
		return self, nil
	}
	return "", control.NewFault(control.ExitFailed, "binary", "sudo postern install --root "+root, "discovery: there is no program in %s for the markers to lead to", root)
}

func (c *cli) discoveryOn(ctx context.Context, f installFlags) error {
	f.discovery = "on"
	if err := c.portIsOurs(f); err != nil {
		return err
	}
	o, err := c.discoveryOptions(f)
	if err != nil {
		return err
	}
	p, err := install.New(o)
	if err != nil {
		return installFault("discovery", err)
	}
	if f.dryRun {
		return c.showPlan(p, f, o.Init, "")
	}
	if err := needRoot("discovery", f.root); err != nil {
		return err
	}
	if err := p.Apply(nil, c.tellStep); err != nil {
		return control.NewFault(control.ExitFailed, "discovery", again()+"   # completes what was begun", "%w", err)
	}
	live := liveSystemd(f, o.Init)
	return errors.Join(live.Do(ctx, live.Remount(p), c.tellStep), c.showPlan(p, f, o.Init, "postern check --only marker-files,env-vars,token-dir-path"))
}

func (c *cli) discoveryOff(ctx context.Context, f installFlags) error {
	p, err := install.Remove(install.Options{Root: f.root}, false, install.PartDiscovery)
	if err != nil {
		return installFault("discovery", err)
	}
	m, err := install.Installed(f.root)
	if err != nil {
		return installFault("discovery", err)
	}
	if f.dryRun {
		return c.showPlan(p, f, m.Init, "")
	}
	if err := needRoot("discovery", f.root); err != nil {
		return err
	}
	if len(p.Steps) == 0 {
		c.say("discovery is off")
		return c.showPlan(p, f, m.Init, "")
	}
	live := liveSystemd(f, m.Init)
	before, after := live.Unmount(ctx, p)
	err = live.Do(ctx, before, c.tellStep)
	if err == nil {
		err = p.Take(nil, c.tellStep)
	}
	if err != nil {
		return control.NewFault(control.ExitFailed, "discovery", again()+"   # completes what was begun", "%w", err)
	}
	return errors.Join(live.Do(ctx, after, c.tellStep), c.showPlan(p, f, m.Init, ""))
}

// liveSystemd is systemd, which has variables that services are to have, and
// perhaps a mount; no other init system takes part in discovery.
func liveSystemd(f installFlags, init string) install.Live {
	return install.Live{Init: init, Running: init == "systemd" && f.root == "/" && initFound{install.Detect("/")}.runs(init)}
}

// discoveryShow says for each path whether clients find us there.
func (c *cli) discoveryShow(_ context.Context, f installFlags) error {
	o, err := c.discoveryOptions(f)
	if err != nil {
		return err
	}
	p, err := install.Look(o)
	var refusal *install.Refusal
	if err != nil && !errors.As(err, &refusal) {
		return installFault("discovery", err)
	}
	state := "on"
	if refusal != nil {
		state = "foreign"
	} else if p.Changes() {
		state = "off"
		for _, s := range p.Steps {
			if s.Kind != install.Directory && s.Do == install.DoUnchanged {
				state = "incomplete"
			}
		}
	}
	if c.json {
		return c.printDocument("discovery", map[string]any{"discovery": state, "steps": p.Steps})
	}
	c.print("discovery is %s", state)
	for _, s := range p.Steps {
		if s.Kind == install.Directory {
			continue
		}
		c.print("%-10s %s", map[bool]string{true: "there", false: "missing"}[s.Do == install.DoUnchanged], s.Path)
	}
	if err != nil {
		c.print("%-10s %s", "foreign", err)
	}
	return nil
}
