package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"postern/agent/config"
	"postern/agent/control"
	"postern/platform"
)

// loadConfig reads the configuration file under the flags. A file that was
// named must exist; the default one may be missing.
func (c *cli) loadConfig(more ...config.Override) (config.Config, error) {
	path := c.namedConfig()
	if path != "" {
		return c.loadFile(path, more...)
	}
	cfg, err := c.loadFile(defaultHost.Config, more...)
	if errors.Is(err, fs.ErrNotExist) {
		return c.loadFile("", more...)
	}
	return cfg, err
}

// namedConfig is the file that somebody asked for; empty for none.
func (c *cli) namedConfig() string { return first(c.config, os.Getenv("POSTERN_CONFIG")) }

// loadFile reads one file, or the defaults without one, under the flags.
func (c *cli) loadFile(path string, more ...config.Override) (config.Config, error) {
	cfg, err := config.Load(path, readConfig, append(c.overrides(), more...)...)
	if err != nil {
		return config.Config{}, configFault(path, err)
	}
	return cfg, nil
}

func configFault(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return control.NewFault(control.ExitUsage, "config-missing", "postern config print --defaults | sudo tee "+path, "%w", err)
	}
	var open *openConfigError
	if errors.As(err, &open) {
		return control.NewFault(control.ExitUsage, "config-owner", "sudo chmod go-w "+open.path, "%w", err)
	}
	return control.NewFault(control.ExitUsage, "config-valid", "postern config print --defaults   # shows every key", "%w", err)
}

// overrides are the flags that stand for keys of the file. A state directory
// of its own takes the runtime directory with it, so that two instances do not
// meet in one socket.
func (c *cli) overrides() []config.Override {
	var list []config.Override
	set := func(key, value, flag string) {
		if value != "" {
			if abs, err := filepath.Abs(value); err == nil {
				value = abs
			}
			list = append(list, config.Override{Key: key, Value: value, Flag: flag})
		}
	}
	set("state_dir", c.stateDir, "--state-dir")
	set("tokens_dir", c.tokensDir, "--tokens-dir")
	runtime := c.runtimeDir
	if runtime == "" && c.stateDir != "" {
		runtime = filepath.Join(c.stateDir, "run")
	}
	set("runtime_dir", runtime, "--runtime-dir")
	return list
}

// openConfigError refuses a configuration that others could have written.
type openConfigError struct {
	path string
	mode fs.FileMode
}

func (e *openConfigError) Error() string {
	return fmt.Sprintf("%s can be written by other users (mode %04o)", e.path, e.mode.Perm())
}

func readConfig(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|openAtOnce, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if othersMayWrite(info.Mode()) {
		return nil, &openConfigError{path: path, mode: info.Mode()}
	}
	return io.ReadAll(io.LimitReader(f, config.MaxSize+1))
}

// controlPath is where the agent of cfg listens for verbs.
func controlPath(cfg config.Config) string {
	dir := cfg.RuntimeDir
	if dir == "" {
		dir = defaultHost.Runtime
	}
	return controlAddress(dir)
}

// newLog writes to w in the configured form. The init system's journal adds
// the time itself; fix completes the commands that are given as "fix".
func newLog(cfg config.Config, w io.Writer, fix func(string) string) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(cfg.LogLevel)) // validated by config
	inJournal := os.Getenv("JOURNAL_STREAM") != ""
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		switch {
		case len(groups) > 0:
		case a.Key == slog.TimeKey && inJournal:
			return slog.Attr{}
		case a.Key == "fix" && a.Value.Kind() == slog.KindString:
			return slog.String(a.Key, fix(a.Value.String()))
		}
		return a
	}}
	if inJournal {
		w = journal{w}
	}
	if cfg.Log == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// hostOptions turns the configuration into the platform's words.
func hostOptions(cfg config.Config, log *slog.Logger) platform.Options {
	return platform.Options{
		StateDir: cfg.StateDir, RuntimeDir: cfg.RuntimeDir, TokensDir: cfg.TokensDir,
		Config: cfg.Path(), Group: cfg.Group, Log: log,
	}
}
