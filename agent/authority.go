package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"syscall"

	"postern/agent/authority/site"
	"postern/agent/config"
	"postern/agent/control"
	"postern/agent/verb"
	"postern/platform"
	"postern/store"
)

// authorityFlags say which site authority is meant.
type authorityFlags struct {
	dir string
}

// registrar is what the verbs ask of a site authority: the running one, by its
// admin socket, or the files themselves when none runs.
type registrar interface {
	Info(context.Context) (site.Info, error)
	Machines(context.Context) ([]site.Machine, error)
	Identities(context.Context) ([]site.Identity, error)
	CreateClaim(context.Context, site.ClaimRequest) (site.Claim, error)
	CreateIdentity(ctx context.Context, name, group string) (site.Identity, error)
	DeleteIdentity(ctx context.Context, name string, force bool) error
	DisableIdentity(ctx context.Context, name string, disabled bool) error
	Assign(ctx context.Context, identity, machine string) error
	RenewAssignment(ctx context.Context, identity, machine string) error
	Unassign(ctx context.Context, identity, machine string) error
	DeleteMachine(ctx context.Context, name string) error
	RevokeMachine(ctx context.Context, name string) error
	RevokeCertificate(ctx context.Context, serial string) error
	AddResource(context.Context, site.Resource) error
	RemoveResource(ctx context.Context, identifier string) error
	Resources(context.Context) ([]site.Resource, error)
	Audit(context.Context, site.AuditQuery) (site.AuditPage, error)
}

var (
	_ registrar = (*site.Authority)(nil)
	_ registrar = (*site.Admin)(nil)
)

func (c *cli) authorityVerb() *verb.Command {
	f := new(authorityFlags)
	c.authorityDir = &f.dir
	parent := &verb.Command{
		Use: "authority", Short: "The site authority: certificates and tokens for a plant of its own",
		RunE: func(cmd *verb.Command, _ []string) error { return cmd.Help() },
	}
	parent.PersistentFlags().StringVar(&f.dir, "dir", "", "`directory` of the authority's database (default "+defaultHost.State+"-authority)")
	parent.AddCommand(c.authorityRunVerb(f), c.authorityStatusVerb(f), c.authorityClaimVerb(f), c.authorityIdentityVerb(f),
		c.authorityMachineVerb(f), c.authorityResourceVerb(f), c.authorityRevokeVerb(f), c.authorityAuditVerb(f))
	return parent
}

// place is where one authority keeps its things.
func (f *authorityFlags) place() (string, error) {
	if f.dir == "" {
		return defaultHost.State + "-authority", nil
	}
	return filepath.Abs(f.dir)
}

func adminSocket(dir string) string { return adminAddress(filepath.Join(dir, "run")) }

// ownedAuthority is an authority whose files this process has open.
type ownedAuthority struct {
	authority *site.Authority
	host      platform.Host
	dir       string
}

// openAuthority opens the files. An empty url is the one that stands in them.
func (c *cli) openAuthority(ctx context.Context, f *authorityFlags, at authorityAddress) (*ownedAuthority, error) {
	dir, err := f.place()
	if err != nil {
		return nil, err
	}
	cfg, err := config.Load("", nil, config.Override{Key: "state_dir", Value: dir, Flag: "--dir"},
		config.Override{Key: "runtime_dir", Value: filepath.Join(dir, "run"), Flag: "--dir"})
	if err != nil {
		return nil, err
	}
	limits(cfg)
	log := newLog(cfg, c.stderr, c.complete)
	options := hostOptions(cfg, log)
	options.Group = ""
	host, err := newHost(options)
	if err != nil {
		return nil, hostFault(err)
	}
	if err := host.Secure(dir, platform.Private); err != nil {
		return nil, accessFault("state-dir-access", err)
	}
	harden(host, log)
	g := &graph{cfg: cfg, host: host, log: log}
	a, err := site.Open(ctx, dir, site.Options{
		URL: at.url, Names: at.names, CertificateLife: at.life, Store: g.storeOptions(plan{cfg: cfg, host: host, log: log, verify: verifyChild}), Log: log, Version: version, Built: builtAt(),
		Administrator: func(conn net.Conn) (string, bool) {
			p := host.Peer(conn)
			return p.String(), host.Administrator(p)
		},
	})
	if err != nil {
		return nil, authorityOpenFault(err, f)
	}
	return &ownedAuthority{authority: a, host: host, dir: dir}, nil
}

func authorityOpenFault(err error, f *authorityFlags) error {
	switch {
	case errors.Is(err, store.ErrLocked):
		return control.NewFault(control.ExitFailed, "authority-running", "postern authority status", "authority: %w", err)
	case errors.Is(err, fs.ErrPermission):
		return control.NewFault(control.ExitPermission, "authority-permission", control.AgainWithSudo, "authority: %w", err)
	case errors.Is(err, site.ErrInvalid):
		return control.NewFault(control.ExitUsage, "invalid", "postern authority run --help", "authority: %w", err)
	case errors.Is(err, store.ErrDamaged):
		dir := quoted(first(f.dir, defaultHost.State+"-authority"))
		return control.NewFault(control.ExitDamaged, "authority-damaged", "sudo ls -l "+dir+"   # put a backup of the whole directory in its place", "authority: %w", err)
	case errors.Is(err, syscall.ENOSPC):
		return control.NewFault(control.ExitFailed, "no-space", "df -h "+quoted(first(f.dir, filepath.Dir(defaultHost.State))), "authority: %w", err)
	}
	return fmt.Errorf("authority: %w", err)
}

// ask gives f the running authority, or its files when none runs.
func (c *cli) ask(ctx context.Context, flags *authorityFlags, f func(context.Context, registrar) error) error {
	dir, err := flags.place()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, usualWait)
	defer cancel()
	conn, err := dialControl(ctx, adminSocket(dir))
	if err == nil {
		_ = conn.Close() // only to see whether somebody answers
		admin := site.NewAdmin(func(ctx context.Context) (net.Conn, error) { return dialControl(ctx, adminSocket(dir)) })
		return authorityFault(f(ctx, admin))
	}
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
		return control.NewFault(control.ExitPermission, "authority-permission", control.AgainWithSudo, "%w", &notOurs{dir, err})
	}
	return control.NewFault(control.ExitNotRunning, "authority-not-running", "sudo postern authority run",
		"authority: none is running in %s", dir)
}

// notOurs is an authority whose directory is another account's.
type notOurs struct {
	dir   string
	cause error
}

func (e *notOurs) Error() string {
	return "authority: only root and the account that runs the authority in " + e.dir + " may ask it"
}

// Unwrap returns the refusal of the system.
func (e *notOurs) Unwrap() error { return e.cause }

// authorityFault words the refusals of an authority.
func authorityFault(err error) error {
	var worded *control.Fault
	switch {
	case err == nil || errors.As(err, &worded):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return control.NewFault(control.ExitTimeout, "timeout", "sudo postern authority status", "authority: it does not answer within %s", usualWait)
	case errors.Is(err, site.ErrNotFound):
		return control.NewFault(control.ExitFailed, "not-found", "sudo postern authority machine list; sudo postern authority identity list; sudo postern authority resource list", "authority: %w", err)
	case errors.Is(err, site.ErrExists):
		return control.NewFault(control.ExitFailed, "exists", "sudo postern authority identity list; sudo postern authority machine list", "authority: %w", err)
	case errors.Is(err, site.ErrAssigned):
		return control.NewFault(control.ExitFailed, "assigned", "sudo postern authority identity delete NAME --force   # takes it from its machines, too", "authority: %w", err)
	case errors.Is(err, site.ErrTooMany):
		return control.NewFault(control.ExitFailed, "too-many", "sudo postern authority audit   # it says who made them", "authority: %w", err)
	case errors.Is(err, site.ErrInvalid):
		return control.NewFault(control.ExitUsage, "invalid", "postern authority --help", "authority: %w", err)
	}
	return fmt.Errorf("authority: %w", err)
}
