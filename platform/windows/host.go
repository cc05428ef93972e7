//go:build windows

package windows

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/windows"

	"postern/platform"
)

// Options are platform.Options; each platform package has the name, so that
// one call fits both.
type Options = platform.Options

// Host is Windows. Its methods are safe for concurrent use.
type Host struct {
	dirs   platform.Dirs
	log    *slog.Logger
	group  string
	self   string // our SID
	agent  string // SID of the account that owns the files: ours, or the service's
	bootID string

	mu       sync.Mutex
	readers  string // SID of the group once it was found
	held     map[string]*dir
	announce func(state string) // set while we are a service
}

var _ platform.Host = (*Host)(nil)

// Defaults are the directories unless Options say otherwise
// (firmware-notes/storage.md).
func Defaults() platform.Dirs {
	data, err := windows.KnownFolderPath(windows.FOLDERID_ProgramData, 0)
	if err != nil {
		data = `C:\ProgramData`
	}
	return platform.Dirs{
		State:         filepath.Join(data, `Postern\state`),
		Runtime:       filepath.Join(data, `Postern\run`),
		Tokens:        filepath.Join(data, `AzureConnectedMachineAgent\Tokens`),
		TokensLiteral: filepath.Join(data, `AzureConnectedMachineAgent\Tokens`),
		Config:        filepath.Join(data, `Postern\postern.toml`),
	}
}

// New returns the host with the directories of o. It opens nothing and makes
// nothing. Paths other than Config must be absolute.
func New(o Options) (*Host, error) {
	self, err := ownSID()
	if err != nil {
		return nil, fmt.Errorf("own account: %w", err)
	}
	h := &Host{log: o.Log, group: o.Group, self: self, agent: self, held: map[string]*dir{}, bootID: readBootID()}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	// An administrator makes and reads files for the service, not for himself.
	if self == sidSystem || windows.GetCurrentProcessToken().IsElevated() {
		h.agent = serviceSID(Service)
	}
	h.dirs = Defaults()
	for _, p := range []struct {
		target *string
		value  string
	}{{&h.dirs.State, o.StateDir}, {&h.dirs.Runtime, o.RuntimeDir}, {&h.dirs.Tokens, o.TokensDir}, {&h.dirs.Config, o.Config}} {
		if p.value != "" {
			*p.target = p.value
		}
	}
	if o.TokensDir != "" {
		h.dirs.TokensLiteral = h.dirs.Tokens
	}
	if o.TokensLiteral != "" {
		h.dirs.TokensLiteral = o.TokensLiteral
		if o.TokensDir == "" {
			h.dirs.Tokens = o.TokensLiteral
		}
	}
	if abs, err := filepath.Abs(h.dirs.Config); err == nil {
		h.dirs.Config = abs
	}
	for _, p := range []*string{&h.dirs.State, &h.dirs.Runtime, &h.dirs.Tokens, &h.dirs.TokensLiteral, &h.dirs.Config} {
		if *p, err = cleanPath(*p); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// cleanPath wants a drive and an absolute path: no device names, no shares.
func cleanPath(path string) (string, error) {
	volume := filepath.VolumeName(path)
	if !filepath.IsAbs(path) || len(volume) != 2 || volume[1] != ':' {
		return "", fmt.Errorf("path %q is not an absolute path on a drive", path)
	}
	return filepath.Clean(path), nil
}

// Dirs returns the directories in use.
func (h *Host) Dirs() platform.Dirs { return h.dirs }

// policy resolves a; the error wraps platform.ErrNoGroup.
func (h *Host) policy(a platform.Access) (policy, error) {
	p := policy{access: a, agent: h.agent}
	if a != platform.TokenReaders || h.group == "" {
		return p, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.readers == "" {
		sid, _, _, err := windows.LookupSID("", h.group)
		if err != nil {
			return p, fmt.Errorf("group %q: %w; fix: net localgroup \"%s\" /add", h.group, platform.ErrNoGroup, h.group)
		}
		h.readers = sid.String()
	}
	p.readers = h.readers
	return p, nil
}

// Clock reads the system time and the tick counter, which counts sleep. The
// clock counts as synchronised while a time service adjusts it.
func (h *Host) Clock() platform.Clock {
	return platform.Clock{
		Wall:         time.Now().Round(0).UTC(),
		Boot:         windows.DurationSinceBoot(),
		BootID:       h.bootID,
		Synchronised: timeIsAdjusted(),
	}
}

// Notify tells the service manager that we are ready or stopping; outside of a
// service it does nothing.
func (h *Host) Notify(state string) {
	h.mu.Lock()
	announce := h.announce
	h.mu.Unlock()
	if announce != nil {
		announce(state)
	}
}

// Watchdog is 0: the service manager has none.
func (h *Host) Watchdog() time.Duration { return 0 }

// Prepare does nothing: the installation makes the directories.
func (h *Host) Prepare(string) error { return nil }

// Drop checks that we are the account already: a process cannot become another
// one here, the service manager starts it as such.
func (h *Host) Drop(account string) error {
	sid, _, _, err := windows.LookupSID("", account)
	if err != nil {
		return fmt.Errorf("drop to %s: %w", account, err)
	}
	if sid.String() != h.self {
		return fmt.Errorf("drop to %s: a process cannot change its account; configure the service's", account)
	}
	return nil
}

// LockHolder sees nobody: the system does not say without a third library.
func (h *Host) LockHolder(string) string { return "" }
