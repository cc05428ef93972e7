package main

import (
	"errors"
	"io/fs"
	"path/filepath"

	"postern/agent/control"
	"postern/platform"
)

// keyFiles are what keys could be had from, beside the state directory itself.
var keyFiles = []string{"kek", "identity.db", "identity.db.bak"}

// keyAccess says who else could reach the keys; nil if nobody can. A file that
// is missing exposes nothing.
func (g *graph) keyAccess() error {
	dir := g.host.Dirs().State
	if err := g.host.Check(dir, platform.Private); err != nil {
		return err
	}
	for _, name := range keyFiles {
		path := filepath.Join(dir, name)
		err := g.host.Check(path, platform.Private)
		if err != nil {
			err = g.host.Check(path, platform.Private) // it may have been replaced just then
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// checkAccess looks at the key files. Keys that others could read are not used
// again until reconnect, whatever is put right (T24;
// TestST17KeyFileThatOthersCouldReadIsNotUsedAgain). What is wrong is said once
// in the log, and in the status as long as it is so.
func (g *graph) checkAccess() {
	err := g.keyAccess()
	var access *platform.AccessError
	if err != nil && !errors.As(err, &access) {
		g.log.Warn("key files cannot be checked", "reason", err)
		return
	}
	before := g.drift.Swap(access)
	if access == nil {
		return
	}
	if before == nil || *before != *access {
		g.log.Error("key files", "event", "access-drift", "path", access.Path, "reason", access.Problem, "readers", access.Readers, "fix", access.Fix)
	}
	if access.Readers == "" {
		return
	}
	if err := g.device.Expose(access.Error() + ", readable by " + access.Readers); err != nil {
		g.log.Error("exposure of the keys is not recorded", "reason", err)
	}
}

// keysInReach refuses to make keys where others can read them.
func (g *graph) keysInReach(verb string) error {
	var access *platform.AccessError
	if err := g.keyAccess(); errors.As(err, &access) {
		return control.NewFault(control.ExitDamaged, "key-file-access", access.Fix, "%s: %w", verb, err)
	}
	return nil
}
