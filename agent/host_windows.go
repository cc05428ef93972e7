package main

import (
	"context"
	"io/fs"
	"net"
	"syscall"

	"postern/platform"
	"postern/platform/windows"
)

const (
	targetOS = "windows"
	osType   = "Windows" // as the instance documents spell it
)

// defaultHost is where things are unless the configuration says otherwise.
var defaultHost = windows.Defaults()

func newHost(o platform.Options) (platform.Host, error) { return windows.New(o) }

// controlAddress is a pipe: one agent a machine, whatever its directories.
func controlAddress(string) string { return windows.ControlPipe }

// adminAddress is a pipe of its own: an authority may run beside an agent.
func adminAddress(runtime string) string { return windows.AdminPipe(runtime) }

func dialControl(ctx context.Context, pipe string) (net.Conn, error) {
	return windows.DialControl(ctx, pipe)
}

// Modes say nothing on Windows: the file's own access control decides.
func othersMayRead(fs.FileMode) bool  { return false }
func othersMayWrite(fs.FileMode) bool { return false }

// openFiles is not limited on this system.
func openFiles() uint64 { return unlimitedNumber }

// dumpSignal is a signal that this system never sends; postern status shows the
// same.
const dumpSignal = syscall.Signal(-1)

// platformRoot is false: a trial serves the flavours that need no rights.
func platformRoot() bool { return false }

// restrictVerifier has nothing to do: the child is bounded by time alone.
func restrictVerifier() {}

// syncDirectory has nothing to do: NTFS journals the removal of a file.
func syncDirectory(string) error { return nil }
