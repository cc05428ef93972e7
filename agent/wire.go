package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	"postern/agent/audit"
	"postern/agent/challenge"
	"postern/agent/config"
	"postern/agent/control"
	"postern/agent/credential"
	"postern/agent/endpoint"
	"postern/agent/lifecycle"
	"postern/agent/token"
	"postern/platform"
	"postern/store"
)

// graph is the rooms of one agent, wired: the only place that knows them all.
type graph struct {
	cfg             config.Config
	host            platform.Host
	log             *slog.Logger
	mode            string // "run" or "dev"
	started         time.Time
	clock           *lifecycle.Clock
	contact         *lifecycle.Contact
	file            *store.IdentityFile
	cache           *store.Cache
	audit           *audit.Log
	upstream        *upstream
	device          *credential.Device
	broker          *token.Broker
	keeper          *challenge.Keeper // nil if the Arc flavour is off
	endpoint        *endpoint.Server
	grants          atomic.Pointer[token.Grants]
	reread          func() (config.Config, error) // the configuration file again; nil if there is none
	asked           <-chan os.Signal              // asked for since before the databases were read; nil: nobody listens yet
	workloads       *workloads
	workloadSecrets map[string]store.Secret // given instead of made: dev
	served          func(endpoint.Served)
	poll            bool // the token directory is polled, not watched
	sandbox         string
	saved           store.ContactRecord // what stands in the cache
	serving         control.Endpoint
	recent          recent
	noticed         noticed
	parted          parted
	drift           atomic.Pointer[platform.AccessError] // what is wrong with the key files; nil if nothing is
}

// plan is what a graph is built from.
type plan struct {
	cfg  config.Config
	host platform.Host
	log  *slog.Logger
	mode string
	// dial replaces TCP towards the authority, verify the child process that
	// checks a file, build the time of the binary, and poll leaves out the
	// watcher, which a bubble of simulated time cannot hold: for simulations.
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	verify func(ctx context.Context, path string) error
	build  time.Time
	poll   bool
	served func(endpoint.Served)
}

// build wires everything that verbs and the agent share. It contacts nobody.
func build(ctx context.Context, p plan) (*graph, error) {
	g := &graph{cfg: p.cfg, host: p.host, log: p.log, mode: p.mode, contact: new(lifecycle.Contact), served: p.served, poll: p.poll}
	dirs := p.host.Dirs()
	if err := g.secureState(dirs.State); err != nil {
		return nil, err
	}
	options := g.storeOptions(p)
	var err error
	if g.file, err = store.OpenIdentity(ctx, dirs.State, options); err != nil {
		return nil, storeFault(err)
	}
	if g.cache, err = store.OpenCache(ctx, dirs.State, options); err != nil {
		return nil, errors.Join(storeFault(err), g.file.Close())
	}
	g.clock = g.newClock(p)
	g.started = g.clock.Now().Wall
	g.restoreContact()
	if g.audit, err = audit.Open(audit.Options{Cache: g.cache, Clock: g.clock, UserName: p.host.UserName, Mode: devOnly(p.mode), Log: p.log}); err != nil {
		return nil, errors.Join(fmt.Errorf("audit: %w", err), g.close())
	}
	g.upstream = &upstream{cfg: p.cfg, clock: g.clock, dial: p.dial}
	if err := g.wireIdentities(p); err != nil {
		return nil, errors.Join(err, g.close())
	}
	return g, nil
}

// newClock continues where an earlier process of this boot was.
func (g *graph) newClock(p plan) *lifecycle.Clock {
	c := g.cache.Contact()
	return lifecycle.NewClock(lifecycle.ClockOptions{
		Source:  func() lifecycle.Reading { return lifecycle.Reading(p.host.Clock()) },
		Build:   p.build,
		Vouched: p.cfg.Clock == "trusted",
		Anchor:  lifecycle.Mark{Wall: c.ClockWall, Boot: c.ClockBoot, BootID: c.ClockBootID},
	})
}

// wireIdentities builds the rooms that hold keys and tokens.
func (g *graph) wireIdentities(p plan) (err error) {
	g.device, err = credential.Open(credential.Options{
		File: g.file, Clock: g.clock, Contact: g.contact, Dial: g.upstream.Authority,
		Probe: g.probe, Fingerprint: p.host.Fingerprint, OfflineAfter: p.cfg.OfflineAfter,
		Algorithm: p.cfg.Key.Algorithm, Protection: p.cfg.Key.Protection,
		Log: p.log, Event: g.identityEvent, Static: staticIdentities(p.cfg),
	})
	if err != nil {
		return err
	}
	grants, err := newGrants(p.cfg, p.host)
	if err != nil {
		return control.NewFault(control.ExitUsage, "grant", "postern config check", "grants: %w", err)
	}
	g.grants.Store(grants)
	g.broker = token.NewBroker(token.Options{
		Identities: g.device, Issuer: issuing{g.upstream, g.device.Enrolment}, Clock: g.clock, Contact: g.contact,
		Cache: g.cache, Grants: grants, Limits: token.Limits{Entries: p.cfg.Token.MaxResources},
		Log: p.log, Audit: g.tokenEvent,
	})
	return nil
}

// probe asks the token issuer whether it still knows a credential: the way back
// from Rejected.
func (g *graph) probe(ctx context.Context, with *credential.Credential) error {
	return g.broker.Probe(ctx, with)
}

// secureState makes or verifies the state directory, and refuses a file system
// on which a power cut loses what was acknowledged.
func (g *graph) secureState(dir string) error {
	if err := g.host.Secure(dir, platform.Private); err != nil {
		return accessFault("state-dir-access", err)
	}
	system, err := g.host.FileSystem(dir)
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if system.Remote && !g.cfg.AllowRemoteState {
		return control.NewFault(control.ExitUsage, "filesystem", "postern config print   # set state_dir to a local disk, or allow_remote_state = true",
			"state directory %s is on %s, which may lose what was written", dir, system.Type)
	}
	return nil
}

func accessFault(id string, err error) error {
	var access *platform.AccessError
	if errors.As(err, &access) {
		return control.NewFault(control.ExitPermission, id, access.Fix, "%w", err)
	}
	if errors.Is(err, fs.ErrPermission) {
		return control.NewFault(control.ExitPermission, id, control.AgainWithSudo+"   # or give --state-dir a directory of your own", "%w", err)
	}
	return err
}

func storeFault(err error) error {
	if errors.Is(err, store.ErrLocked) {
		return control.NewFault(control.ExitFailed, "already-running", "postern status   # asks the agent that runs; a verb at work ends by itself", "another postern is at work: %w", err)
	}
	if errors.Is(err, fs.ErrPermission) {
		return accessFault("state-dir-access", err)
	}
	return err
}

func (g *graph) storeOptions(p plan) store.Options {
	return store.Options{
		OpenFile: func(path string, flag int) (*os.File, error) {
			f, err := p.host.OpenFile(path, flag, platform.Private)
			return f, withCure(err)
		},
		WriteFile: func(path string, content []byte) error {
			return p.host.WriteFile(path, content, platform.Private)
		},
		Verify: p.verify, Holder: p.host.LockHolder, Log: p.log,
		AllowRemote: p.cfg.AllowRemoteState, FileSystem: func(path string) (store.FileSystem, error) {
			system, err := p.host.FileSystem(path)
			return store.FileSystem(system), err
		},
		AuditRecords: p.cfg.Audit.MaxRecords,
		Now:          func() time.Time { return p.host.Clock().Wall },
	}
}

// withCure hands the platform's command on to whoever reads the store's error.
func withCure(err error) error {
	var access *platform.AccessError
	if errors.As(err, &access) && access.Fix != "" {
		return store.WithFix(err, access.Fix)
	}
	return err
}

// close releases the databases; the graph is not usable afterwards.
func (g *graph) close() error {
	var errs []error
	if g.audit != nil {
		errs = append(errs, g.audit.Close(context.Background()))
	}
	if g.cache != nil {
		errs = append(errs, g.cache.Close())
	}
	if g.file != nil {
		errs = append(errs, g.file.Close())
	}
	return errors.Join(errs...)
}

func staticIdentities(cfg config.Config) []credential.Identity {
	var list []credential.Identity
	for _, id := range cfg.Identities {
		list = append(list, credential.Identity{
			Kind: credential.Kind(id.Kind), Name: id.Name, ClientID: id.ClientID,
			ObjectID: id.ObjectID, TenantID: id.TenantID, ResourceID: id.ResourceID,
		})
	}
	return list
}

// newGrants is the policy of the file: its grants, and what each workload's
// table leaves open.
func newGrants(cfg config.Config, host platform.Host) (*token.Grants, error) {
	grants, err := token.NewGrants(grantsOf(cfg), host)
	if err != nil {
		return nil, err
	}
	for _, w := range cfg.Workloads {
		if err := grants.Confine(w.Name, w.Identities, w.Resources); err != nil {
			return nil, err
		}
	}
	return grants, nil
}

func grantsOf(cfg config.Config) []token.Grant {
	var list []token.Grant
	for _, g := range cfg.Grants {
		list = append(list, token.Grant{Who: g.Who, Identity: g.Identity, Resources: g.Resources})
	}
	return list
}

// limits sets what the Go runtime may use, unless the operator did.
func limits(cfg config.Config) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(25) // halves what is resident after load; see firmware-notes/sizing.md
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(cfg.MemoryLimit))
	}
}

// devOnly is what audit records say of the mode: nothing on a device.
func devOnly(mode string) string {
	if mode == "dev" {
		return mode
	}
	return ""
}
