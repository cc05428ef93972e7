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
	if d.cli.tokensDir == "" { // else the operator knows best
		if err := d.placeTokens(o, state); err != nil {
			return err
		}
	}
	if d.cfg.Arc.Enabled && !groupExists(o.Group) {
		d.notes = append(d.notes, "the group "+o.Group+" does not exist, so only root can read challenges: groupadd --system "+o.Group)
		o.Group = ""
	}
	return nil
}

// placeTokens makes the place of the challenge files, or leaves the Arc
// flavour out where it is another's.
func (d *developer) placeTokens(o *platform.Options, state string) error {
	if why := d.arcTaken(state); why != "" {
		d.leaveArc(o, why)
		return nil
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
		return d.useLink(o, literal)
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

// useLink accepts a link that an earlier trial left behind. Any other belongs
// to somebody, such as the agent of this machine, and so does the Arc flavour.
func (d *developer) useLink(o *platform.Options, literal string) error {
	to, err := os.Readlink(literal)
	if err != nil {
		return err
	}
	switch {
	case to == o.TokensDir:
	case len(d.flags.listen) > 0:
		return control.NewFault(control.ExitFailed, "token-dir-path", "sudo rm "+literal+"   # if nobody needs it", "dev: %s leads to %s, which is not this trial's", literal, to)
	default:
		d.leaveArc(o, literal+" leads to "+to+", which is not this trial's; if it is nobody's: sudo rm "+literal)
	}
	return nil
}

// arcTaken says who has the port on which clients look for the Arc flavour. A
// trial that was given addresses is to have those, and no others.
func (d *developer) arcTaken(state string) string {
	if len(d.flags.listen) > 0 {
		return ""
	}
	host, err := newHost(platform.Options{StateDir: state})
	if err != nil {
		return "" // which is said when it is needed
	}
	for _, address := range d.cfg.Arc.Listen {
		if owner := host.PortOwner(address); owner != "" {
			return address + " is held by " + owner
		}
	}
	return ""
}

// leaveArc leaves the Arc flavour to whoever has it; the others need no rights
// and nothing that is shared.
func (d *developer) leaveArc(o *platform.Options, why string) {
	d.cfg.Arc.Enabled, o.Group, o.TokensDir, o.TokensLiteral = false, "", "", ""
	d.notes = append(d.notes, "the Arc flavour is not served, because "+why)
}
