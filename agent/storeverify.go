package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"postern/agent/control"
	"postern/agent/verb"
	"postern/store"
)

// verifyLimit bounds the child process that checks a database.
const verifyLimit = 10 * time.Second

func (c *cli) storeVerb() *verb.Command {
	parent := &verb.Command{
		Use: "store", Short: "Look at the databases",
		RunE: func(cmd *verb.Command, _ []string) error { return cmd.Help() },
	}
	long, example := manual("Check a database file without changing it. The agent does this in a process of its own before it opens a file.",
		[]string{"sudo postern store verify /var/lib/postern/identity.db", "postern store verify ./cache.db"}, "0 sound; 1 damaged, not a database, or in use; 7 permission")
	parent.AddCommand(&verb.Command{
		Use: "verify PATH", Short: "Check a database file", Long: long, Example: example, Args: verb.ExactArgs(1),
		RunE: func(cmd *verb.Command, args []string) error {
			restrictVerifier()
			err := store.VerifyFile(cmd.Context(), args[0], store.Options{})
			if werr := store.WriteVerdict(c.stdout, err); werr != nil {
				return werr
			}
			return verifyFault(args[0], err)
		},
	})
	return parent
}

func verifyFault(path string, err error) error {
	exit, fix := control.ExitFailed, "postern status   # says what the agent did about it"
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrPermission):
		exit, fix = control.ExitPermission, control.AgainWithSudo
	case errors.Is(err, fs.ErrNotExist):
		fix = "ls -l " + quoted(filepath.Dir(path))
	case errors.Is(err, store.ErrLocked):
		fix = "postern check --only store-verify   # asks the agent, which has it open"
	}
	return control.NewFault(exit, "store-verify", fix, "%w", err)
}

// verifyChild checks a database in a process of its own, because a damaged
// file can end a process in ways that cannot be caught.
func verifyChild(ctx context.Context, path string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, verifyLimit)
	defer cancel()
	return store.Child(func(ctx context.Context, path string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, self, "store", "verify", path)
		cmd.Env = []string{"GOTRACEBACK=none"} // it needs nothing of ours
		return cmd
	})(ctx, path)
}
