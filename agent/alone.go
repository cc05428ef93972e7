package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"postern/agent/config"
	"postern/agent/control"
	"postern/platform"
)

// alone does a verb's work on the databases when no agent runs. The lock on
// them keeps two from doing it at once.
func (c *cli) alone(ctx context.Context, do func(context.Context, *graph) error) error {
	cfg, err := c.loadConfig()
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler) // the verb says what happened; -v shows the log too
	if c.verbose {
		log = newLog(cfg, c.stderr, c.complete)
	}
	host, err := newHost(hostOptions(cfg, log))
	if err != nil {
		return hostFault(err)
	}
	if cfg.User == "" {
		cfg.User = stateAccount(host)
	}
	if err := c.becomeUser(ctx, host, cfg); err != nil {
		return err
	}
	harden(host, log)
	g, err := build(ctx, plan{cfg: cfg, host: host, log: log, mode: "run", verify: verifyChild, build: builtAt()})
	if err != nil {
		return err
	}
	return errors.Join(do(ctx, g), g.end())
}

// harden is for every process that reads keys, before it does. The result is
// what could be reached.
func harden(host platform.Host, log *slog.Logger) string {
	level, err := host.Harden()
	if err != nil {
		log.Info("hardening is incomplete", "level", level, "reason", err)
	}
	return level
}

// stateAccount is the account that install made, where the state is its own:
// what root wrote there the agent could not read.
func stateAccount(host platform.Host) string {
	info, err := os.Stat(host.Dirs().State)
	if err != nil || !platformRoot() {
		return ""
	}
	owner, known := ownerOf(info)
	if !known || owner <= 0 || host.UserName(platform.UIDPeer(uint32(owner))) != "postern" { //nolint:gosec // a uid has 32 bits
		return ""
	}
	return "postern"
}

// accountHolder is a host on which root can become another account.
type accountHolder interface {
	MayRun(ctx context.Context, account, program string) error
	Prepare(account string) error
	Drop(account string) error
}

// becomeUser makes root the agent's account where the configuration names one:
// what it writes must belong to the agent. The account starts our program too,
// to check the databases; where it may not, nothing is begun.
func (c *cli) becomeUser(ctx context.Context, host platform.Host, cfg config.Config) error {
	h, can := host.(accountHolder)
	if cfg.User == "" || !can || !platformRoot() {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := h.MayRun(ctx, cfg.User, self); errors.Is(err, fs.ErrPermission) {
		return control.NewFault(control.ExitPermission, "user", "sudo install -m 0755 "+quoted(self)+" /usr/local/bin/postern   # and start it from there",
			"become %s: the account must check the databases with this program, and may not execute it: %w", cfg.User, err)
	} else if err != nil {
		return fmt.Errorf("become %s: %w", cfg.User, err)
	}
	if err := h.Prepare(cfg.User); err != nil {
		return accessFault("user", err)
	}
	if c.beforeDrop != nil {
		if err := c.beforeDrop(ctx); err != nil {
			return err
		}
	}
	if err := h.Drop(cfg.User); err != nil {
		return control.NewFault(control.ExitPermission, "user", "sudo postern run --user "+cfg.User, "become %s: %w", cfg.User, err)
	}
	return nil
}

// mayRun refuses a start whose challenges nobody could read: the group that
// reads them is made once, by the operator or by install.
func mayRun(cfg config.Config) error {
	if !cfg.Arc.Enabled || cfg.Group == "" || hasGroup(cfg.Group) {
		return nil
	}
	return control.NewFault(control.ExitUsage, "group-missing", "sudo groupadd --system "+quoted(cfg.Group)+"   # or: addgroup -S "+quoted(cfg.Group)+", or set group in the configuration",
		"there is no group %s on this machine, so no program could read a challenge", cfg.Group)
}

func hostFault(err error) error {
	if errors.Is(err, platform.ErrNoGroup) {
		return control.NewFault(control.ExitUsage, "group-missing", "sudo groupadd --system himds   # or set group in the configuration", "%w", err)
	}
	return err
}
