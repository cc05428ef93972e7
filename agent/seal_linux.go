package main

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"path/filepath"
	"strings"

	"postern/agent/config"
	"postern/agent/control"
	"postern/agent/verb"
	"postern/platform/linux/install"
)

func (c *cli) sealVerb() *verb.Command {
	f := installFlags{}
	var yes bool
	long, example := manual("Make a system that was tried ready to be copied: remove the enrolment, the cache and claims, and nothing else. "+
		"It refuses while the agent runs. The authority is not told: disconnect first if it shall forget this device.",
		[]string{"sudo postern seal-image", "sudo postern seal-image --root /mnt/image --dry-run"}, "0 sealed; 1 the agent runs; 2 usage; 7 not root")
	cmd := &verb.Command{
		Use: "seal-image", Short: "Remove what makes this device this device", Long: long, Example: example,
		RunE: func(cmd *verb.Command, _ []string) error { return c.seal(cmd.Context(), f, yes) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.root, "root", "/", "`directory` of another system's tree")
	flags.BoolVar(&f.dryRun, "dry-run", false, "only say what would be done")
	flags.BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func (c *cli) seal(ctx context.Context, f installFlags, yes bool) error {
	cfg, err := c.configIn(f.root)
	if err != nil {
		return err
	}
	if f.root == "/" && answers(ctx, controlPath(cfg)) {
		return sealInUse(install.ErrInUse)
	}
	state := cfg.StateDir
	if state == "" {
		state = defaultHost.State
	}
	steps, err := install.Seal(f.root, state, true, nil)
	if err != nil {
		return sealFault(err)
	}
	if !f.dryRun {
		if err := needRoot("seal-image", f.root); err != nil && state == defaultHost.State {
			return err
		}
		if err := c.confirm(ctx, yes || len(steps) == 0, "This destroys the identity's keys. Go on?"); err != nil {
			return err
		}
		if steps, err = install.Seal(f.root, state, false, nil); err != nil {
			return sealFault(err)
		}
	}
	return c.showSeal(steps, f)
}

func (c *cli) showSeal(steps []install.Step, f installFlags) error {
	next := "sudo truncate -s 0 " + quoted(filepath.Join(f.root, machineIDFile)) + "   # so that each copy gets an id of its own"
	if c.json {
		if steps == nil {
			steps = []install.Step{}
		}
		return c.printJSON(installDocument{Schema: "postern.seal/1", Root: f.root, DryRun: f.dryRun, Steps: steps, Next: next})
	}
	for _, s := range steps {
		c.tellStep(s)
	}
	switch {
	case f.dryRun:
		c.say("nothing was changed: --dry-run")
	case len(steps) == 0:
		c.say("there is no identity here")
	}
	c.say("next: %s", next)
	return nil
}

// configIn is the configuration of the system in the tree.
func (c *cli) configIn(root string) (config.Config, error) {
	if root == "/" {
		return c.loadConfig()
	}
	in := *c
	if c.config == "" {
		path, err := install.Locate(root, defaultHost.Config)
		if errors.Is(err, fs.ErrNotExist) { // never this system's own
			cfg, err := config.Load("", nil, c.overrides()...)
			if err != nil {
				return cfg, configFault("", err)
			}
			return cfg, nil
		}
		if err != nil {
			return config.Config{}, installFault("config", err)
		}
		in.config = path
	}
	return in.loadConfig()
}

// answers reports whether an agent listens on its control socket.
func answers(ctx context.Context, path string) bool {
	conn, err := dialControl(ctx, path)
	if err == nil {
		_ = conn.Close() // nothing was said
		return true
	}
	var refused *net.OpError
	return errors.As(err, &refused) && refused.Timeout()
}

// stopAgent stops an agent, whose state is about to go.
const stopAgent = "sudo systemctl stop postern.socket postern-control.socket postern.service   # or as your init system stops it, then: "

func sealInUse(err error) error {
	return control.NewFault(control.ExitFailed, "agent-runs", stopAgent+"sudo postern seal-image",
		"seal-image: nothing was changed: %w", err)
}

func sealFault(err error) error {
	if errors.Is(err, install.ErrInUse) {
		return sealInUse(err)
	}
	return control.NewFault(control.ExitFailed, "seal", again()+"   # completes what was begun", "seal-image: %s", strings.TrimPrefix(err.Error(), "seal: "))
}
