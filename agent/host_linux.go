package main

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"postern/platform"
	"postern/platform/linux"
)

const (
	targetOS = "linux"
	osType   = "Linux" // as the instance documents spell it
)

// defaultHost is where things are unless the configuration says otherwise.
var defaultHost = platform.Dirs{
	State: linux.DefaultStateDir, Runtime: linux.DefaultRuntimeDir,
	TokensLiteral: linux.DefaultTokensLiteral, Config: linux.DefaultConfig,
}

func newHost(o platform.Options) (platform.Host, error) { return linux.New(o) }

func controlAddress(runtime string) string { return filepath.Join(runtime, "control.sock") }

// adminAddress is the socket of a site authority in its own directory.
func adminAddress(runtime string) string { return filepath.Join(runtime, "control.sock") }

func dialControl(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", path)
}

func othersMayRead(m fs.FileMode) bool  { return m.Perm()&0o077 != 0 }
func othersMayWrite(m fs.FileMode) bool { return m.Perm()&0o022 != 0 }

// openFiles is how many files this process may have open.
func openFiles() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return unlimitedNumber // then none is known that would be in the way
	}
	return uint64(limit.Cur) //nolint:unconvert // its type differs by architecture
}

// dumpSignal asks for one dump of the state into the log.
const dumpSignal = syscall.SIGUSR1

func platformRoot() bool { return os.Geteuid() == 0 }

// restrictVerifier bounds the process that checks a database: a damaged file
// must not make it eat the machine. Less than 128 MiB stops any Go program at
// its start, and this much one that is built with C.
func restrictVerifier() {
	const data = 128 << 20
	if !withC {
		_ = syscall.Setrlimit(syscall.RLIMIT_DATA, &syscall.Rlimit{Cur: data, Max: data})
	}
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
}

// syncDirectory makes the removal of a file in dir durable.
func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
