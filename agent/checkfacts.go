package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"postern/agent/config"
	"postern/agent/control"
	"postern/platform"
)

// facts are what the checks look at. They come from the running agent where
// there is one, else from a copy of the files.
type facts struct {
	cli       *cli
	cfg       config.Config
	configErr error // then nothing but the checks of the configuration is asked
	host      platform.Host
	asUser    string // empty: whoever asks

	status  control.Status
	known   bool    // status is there
	running bool    // and comes from an agent
	why     finding // why it is not there

	ask    func(context.Context) (control.Probe, error) // calls the authority; nil if nobody can
	answer *control.Probe                               // what it showed
	undo   []func()
}

func (c *cli) gather(ctx context.Context, asUser string) (*facts, error) {
	f := &facts{cli: c, asUser: asUser}
	if f.cfg, f.configErr = c.loadConfig(); f.configErr != nil {
		return f, nil //nolint:nilerr // the check of the configuration tells it
	}
	options := hostOptions(f.cfg, slog.New(slog.DiscardHandler))
	options.AllowSticky = true // a trial may live below /tmp
	var err error
	if f.host, err = newHost(options); err != nil {
		return nil, hostFault(err)
	}
	if asUser != "" && f.host.Account(asUser) == platform.Unknown {
		return nil, control.NewFault(control.ExitUsage, "unknown-user", "getent passwd", "check: there is no user %q on this machine", asUser)
	}
	f.look(ctx)
	return f, nil
}

// patienceForStatus is how long an agent may take to say how it is.
const patienceForStatus = 10 * time.Second

// look asks the agent, or opens a copy of its files.
func (f *facts) look(ctx context.Context) {
	client := &control.Client{Path: controlPath(f.cfg), Dial: dialControl}
	soon, cancel := context.WithTimeout(ctx, patienceForStatus)
	defer cancel()
	st, err := client.Status(soon)
	switch {
	case err == nil:
		f.status, f.known, f.running, f.ask = st, true, true, client.Probe
	case errors.Is(err, control.ErrNotRunning):
		f.why = f.lookAlone(ctx)
	default:
		fault := control.AsFault(err)
		f.why = skip(first(fault.Fix, "postern status"), "the agent cannot be asked: %s", fault.Message).because(control.CauseChain(err))
	}
}

// lookAlone opens a copy of the databases in memory: opening the files
// themselves would repair what is damaged, and check changes nothing. The
// result says why that was not possible.
func (f *facts) lookAlone(ctx context.Context) finding {
	state := f.host.Dirs().State
	if holder := f.host.LockHolder(filepath.Join(state, "identity.db")); holder != "" {
		return skip("postern status", "%s has the databases open, but nothing answers on %s", holder, controlPath(f.cfg))
	}
	scratch, err := f.scratch()
	if err == nil {
		f.undo = append(f.undo, func() { _ = os.RemoveAll(scratch) })
		err = copyState(scratch, state)
	}
	if errors.Is(err, fs.ErrPermission) {
		return skip("sudo postern check", "no agent runs, and only root or the agent's account may look into %s", state)
	}
	if err != nil {
		return skip("sudo postern run   # or: sudo systemctl start postern", "no agent runs, and its files cannot be looked at: %v", err)
	}
	cfg := f.cfg
	options := hostOptions(cfg, slog.New(slog.DiscardHandler))
	options.StateDir, options.RuntimeDir, options.AllowSticky = scratch, filepath.Join(scratch, "run"), true
	host, err := newHost(options)
	if err != nil {
		return skip("postern config check", "no agent runs, and its files cannot be looked at: %v", err)
	}
	g, err := build(ctx, plan{cfg: cfg, host: host, log: slog.New(slog.DiscardHandler), mode: "check", verify: verifyChild, build: builtAt()})
	if err != nil {
		fault := control.AsFault(err)
		return skip(first(fault.Fix, "sudo postern run"), "no agent runs, and its files cannot be opened: %s", fault.Message)
	}
	f.undo = append(f.undo, func() { _ = g.close() })
	f.status, f.known = g.Status(), true
	f.ask = func(ctx context.Context) (control.Probe, error) { return g.Probe(ctx), nil }
	return finding{}
}

// scratch makes a private directory in memory: a key must not be copied to a disk.
func (f *facts) scratch() (string, error) {
	for _, parent := range []string{"/dev/shm", "/run", os.TempDir()} {
		if system, err := f.host.FileSystem(parent); err != nil || !system.Volatile || system.Type == "overlay" {
			continue
		}
		if dir, err := os.MkdirTemp(parent, "postern-check-"); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("there is no directory in memory for a copy of them")
}

// maxCopied bounds what is copied of one database.
const maxCopied = 32 << 20

// copyState copies what is there; a state directory that is missing is an
// error, an empty one is not.
func copyState(to, from string) error {
	if _, err := os.ReadDir(from); err != nil {
		return err
	}
	for _, name := range []string{"identity.db", "identity.db.bak", "identity.json", "kek", "cache.db"} {
		if err := copyFile(filepath.Join(to, name), filepath.Join(from, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func copyFile(to, from string) error {
	if info, err := os.Lstat(from); err != nil || !info.Mode().IsRegular() {
		return errors.Join(err, nil)
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.LimitReader(in, maxCopied))
	return errors.Join(err, out.Close())
}

func (f *facts) close() {
	for i := len(f.undo) - 1; i >= 0; i-- {
		f.undo[i]()
	}
}

// blocked is what every check but those of the configuration says when there
// is no configuration; without a verdict the check may run.
func (f *facts) blocked(c check) finding {
	if f.configErr == nil || c.id == "config-valid" || c.id == "config-owner" {
		return finding{}
	}
	return skip("postern config check", "the configuration is not valid")
}

// enrolled is empty where there is an identity to look at, and otherwise says
// why not.
func (f *facts) enrolled() finding {
	switch {
	case !f.known:
		return f.why
	case f.status.Store.Identity == "none" || len(f.status.Identities) == 0 && f.status.Store.Identity != "damaged":
		return skip("sudo postern connect --claim-file CLAIM", "this device is not connected")
	}
	return finding{}
}

// arc is where the Arc flavour answers, or should.
func (f *facts) arc() []string {
	switch {
	case f.running:
		return f.status.Endpoint.Arc
	case f.cfg.Arc.Enabled:
		return f.cfg.Arc.Listen
	}
	return nil
}

const startAgent = "sudo postern run   # or: sudo systemctl start postern"
