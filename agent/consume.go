package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"

	"postern/agent/control"
)

// consumed ends a connect with --consume: once the device has an identity, by
// this connect or by an earlier one that was cut off before it came here, the
// claim is of no use to the device and of some use to a thief.
func (c *cli) consumed(path string, erase func(path string) error, err error) error {
	var fault *control.Fault
	connected := errors.As(err, &fault) && fault.ID == "already-connected"
	if err != nil && !connected {
		return err
	}
	if left := erase(path); left != nil {
		return control.NewFault(control.ExitFailed, "claim-left", "sudo rm "+path,
			"connect: the device is connected, but its claim cannot be erased: %w", left)
	}
	if connected {
		c.say("the device was connected already; the claim %s is erased", path)
		return nil
	}
	c.tick("the claim " + path + " is erased")
	return nil
}

// eraseFile overwrites a file, removes it, and waits until both are durable.
// On flash the old cells may live on for a while; a claim that was used opens
// nothing.
func eraseFile(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(overwrite(f), f.Close(), os.Remove(path)); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(path))
}

func overwrite(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := io.CopyN(f, zeros{}, info.Size()); err != nil {
		return err
	}
	return f.Sync()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
