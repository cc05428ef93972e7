package main

import (
	"context"
	"errors"
	"strings"

	"postern/agent/config"
	"postern/agent/verb"
)

// runFlags are the flags of run and dev that stand for keys of the configuration.
type runFlags struct {
	listen, imdsListen []string
	user, pidFile      string
	readyFD            int
	logLevel           string
	service            bool // under the Windows service manager
}

func (f *runFlags) add(cmd *verb.Command) {
	flags := cmd.Flags()
	verb.ListVar(flags, &f.listen, "listen", "`addresses` of the Arc flavour, both loopback families")
	verb.ListVar(flags, &f.imdsListen, "imds-listen", "`addresses` of the IMDS flavour; turns it on")
	flags.StringVar(&f.logLevel, "log-level", "", "debug, info, warn or error")
}

func (f *runFlags) overrides() []config.Override {
	var list []config.Override
	set := func(key string, values []string, flag string) {
		if len(values) > 0 {
			list = append(list, config.Override{Key: key, Value: joined(values), Flag: flag})
		}
	}
	set("arc.listen", f.listen, "--listen")
	set("imds.listen", f.imdsListen, "--imds-listen")
	if len(f.imdsListen) > 0 {
		list = append(list, config.Override{Key: "imds.enabled", Value: "true", Flag: "--imds-listen"})
	}
	if f.logLevel != "" {
		list = append(list, config.Override{Key: "log_level", Value: f.logLevel, Flag: "--log-level"})
	}
	if f.user != "" {
		list = append(list, config.Override{Key: "user", Value: f.user, Flag: "--user"})
	}
	return list
}

func (c *cli) runVerb() *verb.Command {
	var f runFlags
	long, example := manual("Be the agent: serve identities to the programs on this device until SIGTERM. Stays in the foreground; logs go to stderr.",
		[]string{"postern run", "postern run --user postern:himds --pidfile /run/postern.pid"}, "0 stopped; 1 an address is taken; 2 configuration; 7 permission")
	cmd := &verb.Command{
		Use: "run", Short: "Be the agent", Long: long, Example: example,
		RunE: func(cmd *verb.Command, _ []string) error {
			cfg, err := c.loadConfig(f.overrides()...)
			if err != nil {
				return err
			}
			return c.runAgent(cmd.Context(), cfg, f)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&f.user, "user", "", "`account`, or account:group, to become when started as root")
	cmd.Flags().BoolVar(&f.service, "service", false, "run under the Windows service manager")
	_ = cmd.Flags().MarkHidden("service")
	cmd.Flags().StringVar(&f.pidFile, "pidfile", "", "`file` to write the process id to")
	cmd.Flags().IntVar(&f.readyFD, "ready-fd", 0, "descriptor on which a newline says ready, as s6 wants it")
	return cmd
}

// runAgent is the life of the agent, from the first privilege to the last byte.
func (c *cli) runAgent(ctx context.Context, cfg config.Config, f runFlags) error {
	if err := mayRun(cfg); err != nil {
		return err
	}
	limits(cfg)
	log := newLog(cfg, c.stderr, c.complete)
	if len(c.deaf) > 0 {
		log.Warn("the environment does not choose roots; token.roots does", "ignored", strings.Join(c.deaf, " "))
	}
	options := hostOptions(cfg, log)
	options.ReadyFD = f.readyFD
	host, err := newHost(options)
	if err != nil {
		return hostFault(err)
	}
	asked, unheard := hearSignals() // by default each of them ends a process
	defer unheard()
	pid, err := openPID(f.pidFile) // first: its directory is root's
	if err != nil {
		return err
	}
	defer pid.close(log)
	if err := c.becomeUser(ctx, host, cfg); err != nil {
		return err
	}
	level := harden(host, log)
	g, err := build(ctx, plan{cfg: cfg, host: host, log: log, mode: "run", verify: verifyChild, build: builtAt()})
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		log.Info("told to stop before it was ready", "reason", err)
		return nil
	}
	if err != nil {
		return err
	}
	if err := pid.write(); err != nil {
		return errors.Join(err, g.close())
	}
	g.sandbox, g.asked = level, asked
	g.reread = func() (config.Config, error) { return c.loadConfig(f.overrides()...) }
	if manager, ok := host.(serviceHost); ok && f.service {
		return manager.Serve(ctx, func(ctx context.Context) error { return g.serve(ctx, nil) })
	}
	return g.serve(ctx, nil)
}

// serviceHost is a host whose service manager starts and stops the agent.
type serviceHost interface {
	Serve(ctx context.Context, run func(context.Context) error) error
}
