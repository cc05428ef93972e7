package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"postern/agent/control"
	"postern/platform"
)

// devDirs chooses where a trial's challenge files lie. Clients look in one
// hard-coded place; as root that place is made to lead to a directory of the
// trial, and what was made is taken away at the end.
func (d *developer) devDirs(o *platform.Options, state string) error {
	if o.RuntimeDir == "" {
		o.RuntimeDir = filepath.Join(state, "run")
	}
	o.AllowSticky = true // a trial may live below /tmp
	if !d.root || !d.cfg.Arc.Enabled {
		o.Group = ""
		return nil
	}
	if !groupExists(o.Group) {
		d.notes = append(d.notes, "the group "+o.Group+" does not exist, so only root can read challenges: groupadd --system "+o.Group)
		o.Group = ""
	}
	if d.cli.tokensDir != "" {
		return nil // the operator knows best
	}
	literal := defaultHost.TokensLiteral
	o.TokensDir, o.TokensLiteral = filepath.Join(o.RuntimeDir, "tokens"), literal
	info, err := os.Lstat(literal)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return d.linkTokens(o.TokensDir, literal)
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		return d.useLink(o.TokensDir, literal)
	}
	o.TokensDir = literal // a mount, or a directory that somebody prepared
	return nil
}

func (d *developer) linkTokens(target, literal string) error {
	if err := os.MkdirAll(filepath.Dir(literal), 0o755); err != nil { //nolint:gosec // clients pass through it
		return accessFault("token-dir-path", err)
	}
	if err := os.Symlink(target, literal); err != nil {
		return accessFault("token-dir-path", err)
	}
	d.undo = append(d.undo, func() {
		if to, err := os.Readlink(literal); err == nil && to == target {
			_ = os.Remove(literal) // ours, and nobody else's by now
		}
	})
	return nil
}

// groupExists looks a group up where the platform does: in the system's own file.
func groupExists(name string) bool {
	if _, err := strconv.Atoi(name); err == nil {
		return true
	}
	raw, err := os.ReadFile("/etc/group")
	if err != nil {
		return false
	}
	for line := range strings.SplitSeq(string(raw), "\n") {
		if found, _, _ := strings.Cut(line, ":"); found == name {
			return true
		}
	}
	return false
}

// useLink accepts a link that an earlier trial left behind; any other belongs
// to somebody.
func (d *developer) useLink(target, literal string) error {
	to, err := os.Readlink(literal)
	if err != nil {
		return err
	}
	if to == target {
		return nil
	}
	return control.NewFault(control.ExitFailed, "token-dir-path", "postern dev --state-dir DIR --tokens-dir "+to,
		"dev: %s leads to %s, which is not this trial's", literal, to)
}
