package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"postern/agent/authority/site"
	"postern/agent/config"
	"postern/agent/control"
	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/agent/verb"
	"postern/platform"
	"postern/store"
)

// devFlags are what dev takes beside the flags of run.
type devFlags struct {
	runFlags
	users   []string
	offline bool
}

func (c *cli) devVerb() *verb.Command {
	f := devFlags{users: []string{"dev-user"}}
	long, example := manual("Try it out: a site authority and the agent in one process on loopback, enrolled with each other, with one user-assigned identity besides. "+
		"As root all flavours are served; otherwise the App Service and IMDS flavours, which need no files and no rights.",
		[]string{"postern dev", "sudo postern dev --user-assigned telemetry --state-dir /var/tmp/try"}, "0 stopped; 1 an address is taken; 2 usage; 4 --offline, and nothing was saved yet; 7 permission; 11 what was saved is damaged")
	cmd := &verb.Command{
		Use: "dev", Short: "Site authority and agent in one process, on loopback", Long: long, Example: example,
		RunE: func(cmd *verb.Command, _ []string) error { return c.dev(cmd.Context(), f) },
	}
	f.add(cmd)
	verb.ListVar(cmd.Flags(), &f.users, "user-assigned", "`name` of a user-assigned identity; may be repeated")
	cmd.Flags().BoolVar(&f.offline, "offline", false, "leave the authority switched off: what was saved must do")
	return cmd
}

// dev is the whole of Postern in one process. Nothing about it is weaker than
// in production but that everything is on loopback: same checks, same files.
func (c *cli) dev(ctx context.Context, f devFlags) error {
	for _, name := range f.users {
		if !siteName(name) {
			return control.NewFault(control.ExitUsage, "usage", "postern dev --user-assigned telemetry",
				"dev: --user-assigned is %q, want 1 to 64 letters, digits, '.', '_' or '-', a letter or digit at both ends", name)
		}
	}
	d, err := c.prepareDev(f)
	if err != nil {
		return err
	}
	defer d.cleanUp()
	limits(d.cfg)
	group, ctx := errgroup.WithContext(ctx)
	g, err := build(ctx, plan{
		cfg: d.cfg, host: d.host, log: d.log, mode: "dev", verify: verifyChild, build: builtAt(), served: d.served,
	})
	if err != nil {
		return err
	}
	g.workloadSecrets = d.secrets
	if rec, enrolled := g.device.Enrolment(); enrolled {
		d.memory.Authority = strings.TrimPrefix(rec.AuthorityURL, "https://") // it has to be found there again
	}
	authority, err := d.openAuthority(ctx, group)
	if err == nil {
		err = d.enroll(ctx, g, authority)
	}
	if err != nil {
		return errors.Join(err, g.close())
	}
	group.Go(func() error {
		if err := g.serve(ctx, func() { d.ready(g) }); err != nil {
			return d.portFault(err)
		}
		return context.Canceled // the authority ends with the agent
	})
	err = group.Wait()
	if authority != nil {
		err = errors.Join(withoutCancel(err), authority.Close())
	}
	return withoutCancel(err)
}

// portFault is for an address that was free when this trial began, and is
// remembered since.
func (d *developer) portFault(err error) error {
	f := control.AsFault(err)
	if f.ID != "port-owner" {
		return err
	}
	return control.NewFault(f.Exit, f.ID, "rm "+quoted(d.memoryPath())+"   # the next start chooses other addresses; or stop that program", "dev: %w", err)
}

func withoutCancel(err error) error {
	f := control.AsFault(err)
	switch {
	case err == nil, errors.Is(err, context.Canceled) && f.ID == "failed" && onlyCanceled(err):
		return nil
	}
	return err
}

// onlyCanceled reports whether err says nothing beside that the context ended.
func onlyCanceled(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // looks at this very error
		for _, e := range joined.Unwrap() {
			if !onlyCanceled(e) {
				return false
			}
		}
		return true
	}
	return errors.Is(err, context.Canceled)
}

// openAuthority opens the site authority beside the agent's state and, unless
// told to stay offline, serves it on the address that was used before.
func (d *developer) openAuthority(ctx context.Context, group *errgroup.Group) (*site.Authority, error) {
	if d.flags.offline {
		return nil, nil //nolint:nilnil // offline there is none
	}
	l, err := d.host.Listen(ctx, platform.Listener{Name: "authority", Network: network(d.memory.Authority), Address: d.memory.Authority, Loopback: true})
	if err != nil {
		return nil, control.NewFault(control.ExitFailed, "port-owner", "postern dev --state-dir DIR   # another trial; or stop that program", "dev: the authority beside it: %w", err)
	}
	if d.memory.Authority = l.Addr().String(); d.save() != nil {
		d.log.Warn("the authority's address is not remembered", "path", d.memoryPath())
	}
	dir := filepath.Join(d.host.Dirs().State, "authority")
	if err := d.host.Secure(dir, platform.Private); err != nil {
		return nil, errors.Join(accessFault("state-dir-access", err), l.Close())
	}
	a, err := site.Open(ctx, dir, site.Options{
		URL: "https://" + d.memory.Authority, Store: d.storeOptions(), Log: d.log.With("room", "authority"), Version: version, Built: builtAt(),
	})
	if errors.Is(err, store.ErrDamaged) {
		err = control.NewFault(control.ExitDamaged, "authority-damaged", "rm -r "+quoted(d.host.Dirs().State)+"   # to begin anew", "dev: %w", err)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if err := a.AddResource(ctx, site.Resource{Identifier: "*", Wildcard: true}); err != nil {
		return nil, errors.Join(err, l.Close(), a.Close())
	}
	group.Go(func() error { return a.Serve(ctx, l) })
	return a, nil
}

// enroll connects the agent with the authority beside it, once.
func (d *developer) enroll(ctx context.Context, g *graph, a *site.Authority) error {
	standing, _ := g.device.System()
	if a == nil {
		if standing.State == lifecycle.Unenrolled {
			return control.NewFault(control.ExitUnenrolled, "dev-offline", "postern dev   # once, without --offline",
				"dev: nothing was saved in %s yet, so there is nothing to serve offline", g.host.Dirs().State)
		}
		return nil
	}
	name := machineName()
	if standing.State == lifecycle.Unenrolled || standing.State == lifecycle.Expired {
		claim, err := a.CreateClaim(ctx, site.ClaimRequest{Machine: name, Reonboard: d.known(ctx, a, name)})
		if err != nil {
			return err
		}
		req := control.ConnectRequest{Claim: claim.Token.Reveal(), Again: standing.State == lifecycle.Expired}
		if err := g.Connect(ctx, req, d.step); err != nil {
			return err
		}
	}
	for _, user := range d.flags.users {
		if _, err := a.CreateIdentity(ctx, user, ""); err != nil && !errors.Is(err, site.ErrExists) {
			return err
		}
		if err := a.Assign(ctx, user, name); err != nil && !errors.Is(err, site.ErrExists) {
			return err
		}
	}
	return d.sync(ctx, g)
}

// sync fetches the identities that were assigned just now. Without a kernel
// that knows the time the authority has to confirm it first, once a boot. A
// state that allows nothing is served and shown, like that of any agent.
func (d *developer) sync(ctx context.Context, g *graph) error {
	g.Probe(ctx)
	err := g.device.Sync(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var p *credential.Problem
	if errors.As(err, &p) && p.State != 0 {
		d.notes = append(d.notes, err.Error()+"; to begin anew: rm -r "+quoted(g.host.Dirs().State))
		return nil
	}
	if err != nil {
		return upstreamFault("dev", err)
	}
	return nil
}

func (d *developer) known(ctx context.Context, a *site.Authority, name string) bool {
	m, err := a.MachineByName(ctx, name)
	return err == nil && m.Disconnected.IsZero()
}

// machineName is what the device is called at the authority: its host name.
func machineName() string {
	name, err := os.Hostname()
	if err != nil {
		name = ""
	}
	return nameFrom(name)
}

// siteName reports whether a site authority takes it for a name.
func siteName(s string) bool {
	return s != "" && len(s) <= 64 && madeOf(s, letters+"._-") && madeOf(s[:1]+s[len(s)-1:], letters)
}

// nameFrom is the host name, or "device" where the authority would not take it:
// Linux calls a host that was given none "(none)".
func nameFrom(host string) string {
	if !siteName(host) {
		return "device"
	}
	return host
}

// devConfig is the configuration of a trial: everything on loopback, one
// workload for the App Service flavour, and Arc only where its files can be
// made. The file of this machine is the agent's, which may run beside it; a
// trial reads one that is named for it.
func (c *cli) devConfig(f devFlags, state string, root bool, m devMemory) (config.Config, error) {
	list := append(f.overrides(), config.Override{Key: "state_dir", Value: state, Flag: "dev"})
	if !root {
		list = append(list, config.Override{Key: "arc.enabled", Value: "false", Flag: "dev"})
	}
	if len(f.imdsListen) == 0 {
		list = append(list,
			config.Override{Key: "imds.enabled", Value: "true", Flag: "dev"},
			config.Override{Key: "imds.listen", Value: m.IMDS, Flag: "dev"},
			config.Override{Key: "imds.allow", Value: "anyone", Flag: "dev"})
	}
	if f.logLevel == "" {
		list = append(list, config.Override{Key: "log_level", Value: "warn", Flag: "dev"})
	}
	cfg, err := c.loadFile(c.namedConfig(), list...)
	if err != nil {
		return cfg, err
	}
	if err := onlyLoopback(cfg); err != nil {
		return cfg, err
	}
	if err := ownAuthority(&cfg); err != nil {
		return cfg, err
	}
	cfg.Workloads = []config.Workload{{Name: "dev", Listen: m.AppService}}
	return cfg, nil
}

// onlyLoopback refuses a trial that others could reach.
func onlyLoopback(cfg config.Config) error {
	for _, address := range append(append([]string{}, cfg.Arc.Listen...), cfg.IMDS.Listen...) {
		host, _, err := net.SplitHostPort(address)
		if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() && host != "169.254.169.254" {
			return control.NewFault(control.ExitUsage, "dev-loopback", "postern dev --imds-listen 127.0.0.1:40343",
				"dev: %s is not a loopback address; dev never listens beyond this machine", address)
		}
	}
	return nil
}

// ownAuthority leaves a trial no other authority than the one beside it,
// whatever the file names for a device.
func ownAuthority(cfg *config.Config) error {
	plain, err := config.Load("", nil)
	if err != nil {
		return err
	}
	cfg.Authority, cfg.Token, cfg.Identities = plain.Authority, plain.Token, nil
	cfg.Proxy, cfg.ProxyCredentialsFile, cfg.User = "", "", ""
	return nil
}
