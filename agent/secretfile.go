package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"postern/agent/control"
	"postern/store"
)

const maxSecretFile = 1 << 20

// secret reads an onboarding secret: from the file that the flag names, from
// stdin if it names "-", else from the init system's credential directory.
// There is no form on argv and none in the environment. The file must not be
// readable by others.
func (c *cli) secret(ctx context.Context, verb, flag, path, credential string) (store.Secret, error) {
	switch {
	case path == "-":
		return readSecret(interruptible{ctx, c.stdin}, "stdin")
	case path != "":
		return openSecret(path, "sudo postern "+verb+" "+flag+" FILE   # a regular file, or - for stdin", othersMayRead)
	}
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return store.Secret{}, control.NewFault(control.ExitUsage, "no-secret", "sudo postern "+verb+" "+flag+" -   # and paste it",
			"%s is missing: give a file, or - for stdin", flag)
	}
	return openSecret(filepath.Join(dir, credential), "sudo postern "+verb+" "+flag+" FILE   # or - for stdin", worldMayRead)
}

// worldMayRead judges a credential of the init system: systemd lets the unit's
// account read it by an ACL, whose mask shows as the group's bits.
func worldMayRead(m fs.FileMode) bool { return othersMayRead(m &^ 0o070) }

func secretFromFile(path string) (store.Secret, error) {
	return openSecret(path, "ls -l "+quoted(path), othersMayRead)
}

// openSecret reads the file; fix is what to do about one that is no file.
func openSecret(path, fix string, exposed func(fs.FileMode) bool) (store.Secret, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|openAtOnce, 0) // of a pipe, an open would wait for who writes
	if err != nil {
		return store.Secret{}, control.NewFault(control.ExitUsage, "secret-file", "ls -l "+quoted(path), "%w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return store.Secret{}, err
	}
	if !info.Mode().IsRegular() {
		return store.Secret{}, control.NewFault(control.ExitUsage, "secret-file", fix, "%s is not a regular file", path)
	}
	if exposed(info.Mode()) {
		return store.Secret{}, control.NewFault(control.ExitPermission, "secret-file-open", "chmod 600 "+quoted(path),
			"%s can be read by other users (mode %04o)", path, info.Mode().Perm())
	}
	return readSecret(f, path)
}

func readSecret(r io.Reader, name string) (store.Secret, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxSecretFile+1))
	if err != nil {
		return store.Secret{}, fmt.Errorf("read %s: %w", name, err)
	}
	text := strings.TrimSpace(string(raw))
	if text == "" || len(raw) > maxSecretFile {
		return store.Secret{}, control.NewFault(control.ExitUsage, "secret-size", "postern authority claim MACHINE   # makes a new one",
			"%s holds %d bytes, want a claim", name, len(raw))
	}
	return store.NewSecret(text), nil
}
