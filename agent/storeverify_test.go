package main

import (
	"fmt"
	"io/fs"
	"testing"

	"postern/agent/control"
	"postern/store"
)

func TestVerdictThatWasNotReachedSaysHowToReachOne(t *testing.T) {
	for _, row := range []struct {
		err  error
		exit int
		fix  string
	}{
		{store.ErrDamaged, control.ExitFailed, "postern status   # says what the agent did about it"},
		{store.ErrLocked, control.ExitFailed, "postern check --only store-verify   # asks the agent, which has it open"},
		{fs.ErrPermission, control.ExitPermission, control.AgainWithSudo},
		{fs.ErrNotExist, control.ExitFailed, "ls -l /var/lib/postern"},
	} {
		f := control.AsFault(verifyFault("/var/lib/postern/identity.db", fmt.Errorf("open: %w", row.err)))
		if f == nil || f.Exit != row.exit || f.Fix != row.fix {
			t.Errorf("%v: got %+v", row.err, f)
		}
	}
	if err := verifyFault("/x", nil); err != nil {
		t.Error(err)
	}
}
