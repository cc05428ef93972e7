//go:build linux

package qemu

import (
	"context"
	"encoding/json"
	"io/fs"
	"slices"
)

// base are the modules of every guest.
func base() []string { return []string{"virtio_pci", "virtio_blk", "virtio_console", "virtio_rng"} }

// Initrd completes a with the guest program as /init, the job and the modules
// that it needs beside those of every guest, and saves it to file.
func Initrd(ctx context.Context, k Kernel, arch, file string, job Job, a *Archive, modules ...string) error {
	guest, err := BuildGuest(ctx, arch)
	if err != nil {
		return err
	}
	content, err := json.Marshal(job)
	if err != nil {
		return err
	}
	return Pack(k, guest, file, content, a, modules...)
}

// Pack is Initrd with a PID 1 and a job of the caller's own.
func Pack(k Kernel, guest, file string, job []byte, a *Archive, modules ...string) error {
	a.Node("dev/console", 0o600, 'c', 5, 1)
	a.Node("dev/null", 0o666, 'c', 1, 3)
	for _, dir := range []string{"proc", "sys", "run", "newroot", "etc", "bin"} {
		a.Dir(dir, 0o755)
	}
	a.Dir("tmp", 0o777|fs.ModeSticky)
	a.Copy("init", 0o755, guest)
	a.File("job.json", 0o644, job)
	if err := k.Pack(a, slices.Concat(base(), modules)...); err != nil {
		return err
	}
	return a.Save(file)
}
