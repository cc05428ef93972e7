package powercut

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"postern/platform"
	"postern/platform/linux"
	"postern/store"
)

// Verify is an Options.Verify of package store.
type Verify = func(ctx context.Context, path string) error

// Open opens the state directory dir as the agent does: through the platform,
// which decides on every file's owner and access. verify nil checks in this
// process.
func Open(ctx context.Context, dir string, verify Verify) (*store.IdentityFile, *store.Cache, error) {
	host, err := linux.New(platform.Options{
		StateDir: dir, RuntimeDir: filepath.Join(dir, "run"), TokensDir: filepath.Join(dir, "run", "tokens"),
		TokensLiteral: filepath.Join(dir, "run", "tokens"),
	})
	if err != nil {
		return nil, nil, err
	}
	o := store.Options{
		OpenFile: func(path string, flag int) (*os.File, error) {
			return host.OpenFile(path, flag, platform.Private)
		},
		WriteFile: func(path string, content []byte) error {
			return host.WriteFile(path, content, platform.Private)
		},
		Verify: verify,
		FileSystem: func(path string) (store.FileSystem, error) {
			system, err := host.FileSystem(path)
			return store.FileSystem(system), err
		},
	}
	f, err := store.OpenIdentity(ctx, dir, o)
	if err != nil {
		return nil, nil, fmt.Errorf("identity: %w", err)
	}
	c, err := store.OpenCache(ctx, dir, o)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("cache: %w", err), f.Close())
	}
	return f, c, nil
}
