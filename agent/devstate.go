package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"

	"postern/agent/config"
	"postern/agent/control"
	"postern/agent/endpoint"
	"postern/platform"
	"postern/store"
)

// devMemory is what a trial remembers beside its databases, so that a second
// start answers where the first one did and exported variables stay right.
type devMemory struct {
	Authority  string `json:"authority"`
	IMDS       string `json:"imds"`
	AppService string `json:"app_service"`
	Secret     string `json:"secret"` // of the App Service pair; the file is private
}

const (
	devIMDS       = "127.0.0.1:40343"
	devAppService = "127.0.0.1:40344"
)

// developer is one run of dev.
type developer struct {
	cli     *cli
	flags   devFlags
	cfg     config.Config
	host    platform.Host
	log     *slog.Logger
	root    bool
	memory  devMemory
	secrets map[string]store.Secret
	undo    []func()
	notes   []string   // what a person should know about this trial
	mu      sync.Mutex // one line at a time
}

func (c *cli) prepareDev(f devFlags) (_ *developer, err error) {
	d := &developer{cli: c, flags: f, root: platformRoot()}
	defer func() {
		if err != nil {
			d.cleanUp()
		}
	}()
	state, err := c.devStateDir(d.root)
	if err != nil {
		return nil, err
	}
	c.stateDir = state                                              // so that the commands in fix lines look there
	if err := os.MkdirAll(filepath.Dir(state), 0o755); err != nil { //nolint:gosec // parents of a state directory are public
		return nil, placeFault(state, err)
	}
	if err := d.recall(state); err != nil {
		return nil, err
	}
	if d.cfg, err = c.devConfig(f, state, d.root, d.memory); err != nil {
		return nil, err
	}
	d.log = newLog(d.cfg, c.stderr, c.complete)
	options := hostOptions(d.cfg, d.log)
	if err := d.devDirs(&options, state); err != nil {
		return nil, err
	}
	if d.host, err = newHost(options); err != nil {
		return nil, hostFault(err)
	}
	if err := d.host.Secure(state, platform.Private); err != nil {
		return nil, accessFault("state-dir-access", err)
	}
	if err := d.save(); err != nil {
		return nil, fmt.Errorf("dev: %w", err)
	}
	d.secrets = map[string]store.Secret{"dev": store.NewSecret(d.memory.Secret)}
	return d, nil
}

// devStateDir is where a trial keeps its things: never where the agent of this
// machine keeps its own.
func (c *cli) devStateDir(root bool) (string, error) {
	if c.stateDir != "" {
		return filepath.Abs(c.stateDir)
	}
	if root {
		return defaultHost.State + "-dev", nil
	}
	base := os.Getenv("XDG_STATE_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", control.NewFault(control.ExitUsage, "state-dir", "postern dev --state-dir DIR", "dev: there is no home directory: %w", err)
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "postern-dev"), nil
}

// placeFault words why there can be no trial in this directory.
func placeFault(state string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return accessFault("state-dir-access", err)
	}
	return control.NewFault(control.ExitFailed, "state-dir", "postern dev --state-dir DIR   # one that can be made", "dev: the state directory %s: %w", state, err)
}

func (d *developer) memoryPath() string { return devMemoryIn(d.cfg.StateDir) }

func devMemoryIn(state string) string { return filepath.Join(state, "dev.json") }

func (d *developer) recall(state string) error {
	d.memory = devMemory{Authority: "127.0.0.1:0", IMDS: devIMDS, AppService: devAppService}
	path := devMemoryIn(state)
	raw, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// Only a first start may choose: later the variables are in use.
		d.memory.IMDS, d.memory.AppService = freeOr(d.memory.IMDS), freeOr(d.memory.AppService)
	case err != nil:
		return placeFault(state, err)
	default:
		if err := json.Unmarshal(raw, &d.memory); err != nil {
			return control.NewFault(control.ExitFailed, "dev-memory", "rm "+quoted(path)+"   # the next start makes another", "dev: %s: %w", path, err)
		}
	}
	if d.memory.Secret == "" {
		raw := make([]byte, 32)
		_, _ = io.ReadFull(rand.Reader, raw) // never fails: crypto/rand ends the process instead
		d.memory.Secret = base64.RawURLEncoding.EncodeToString(raw)
	}
	return nil
}

// freeOr returns the address, or another on this machine if it is taken: a
// second trial beside a first one.
func freeOr(address string) string {
	for _, try := range []string{address, "127.0.0.1:0"} {
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", try)
		if err != nil {
			continue
		}
		found := l.Addr().String()
		if l.Close() == nil {
			return found
		}
	}
	return address // the listener's own error says what is wrong
}

func (d *developer) save() error {
	raw, err := json.Marshal(d.memory) //nolint:gosec // into a private file
	if err != nil {
		return err
	}
	if there, err := os.ReadFile(d.memoryPath()); err == nil && bytes.Equal(there, raw) {
		return nil // also where nothing can be written
	}
	return d.host.WriteFile(d.memoryPath(), raw, platform.Private)
}

func (d *developer) storeOptions() store.Options {
	g := &graph{cfg: d.cfg, host: d.host, log: d.log}
	return g.storeOptions(plan{cfg: d.cfg, host: d.host, log: d.log, verify: verifyChild})
}

func (d *developer) step(line string) {
	if !d.cli.json {
		d.cli.tick(line)
	}
}

// served prints one line per request.
func (d *developer) served(s endpoint.Served) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cli.json {
		_ = d.cli.printJSON(requestOf(s))
		return
	}
	d.cli.print("%s", servedLine(s))
}

func (d *developer) cleanUp() {
	for _, undo := range d.undo {
		undo()
	}
}
