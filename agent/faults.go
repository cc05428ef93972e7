package main

import (
	"errors"

	"postern/agent/control"
	"postern/agent/token"
)

// tokenFault words why there is no token, with the exit code of the state or
// class that is the reason.
func tokenFault(err error) error {
	var state *token.StateError
	var grant *token.GrantError
	switch {
	case errors.As(err, &state) && state.Exposed:
		return control.NewFault(control.ExitDamaged, "key-file-access", state.Fix, "token: %w", err)
	case errors.As(err, &state) && brokenCall(err) != nil: // the reason tells of the same call
		call := brokenCall(err)
		return control.NewFault(control.StateExit(state.State), "state-"+state.State.String(), call.fix("token"), "token: %s: %w", state.State, call)
	case errors.As(err, &state):
		return control.NewFault(control.StateExit(state.State), "state-"+state.State.String(), state.Fix, "token: %w", err)
	case errors.As(err, &grant):
		return control.NewFault(control.ExitPermission, "not-granted", grant.Fix, "token: %w", err)
	case errors.Is(err, token.ErrResource):
		return control.NewFault(control.ExitUsage, "resource", "postern token --resource https://vault.azure.net", "token: %w", err)
	case errors.Is(err, token.ErrTooMany):
		return control.NewFault(control.ExitFailed, "too-many", "postern status", "token: %w", err)
	}
	return upstreamFault("token", err)
}
