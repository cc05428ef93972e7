package main

import (
	"errors"

	"postern/platform"
)

// exposed handles a state directory that others could reach: the keys in it
// are not used again until reconnect. A directory that is merely missing, or
// cannot be looked at, exposes nothing.
func (g *graph) exposed(err error) {
	var access *platform.AccessError
	if !errors.As(err, &access) {
		g.log.Warn("state directory cannot be checked", "reason", err)
		return
	}
	if access.Readers == "" {
		g.log.Error("state directory", "event", "access-drift", "path", access.Path, "reason", access.Problem, "fix", access.Fix)
		return
	}
	if err := g.device.Expose(access.Error() + ", readable by " + access.Readers); err != nil {
		g.log.Error("exposure of the keys is not recorded", "reason", err)
	}
}
