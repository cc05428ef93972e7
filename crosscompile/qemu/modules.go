//go:build linux

package qemu

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Pack adds modules with those they need, in load order, unpacked, since
// init_module takes plain files, and the list of them in /modules. A module
// that is built into the kernel needs nothing; one that the kernel lacks is an error.
// Call it once for an archive.
func (k Kernel) Pack(a *Archive, modules ...string) error {
	base := filepath.Dir(filepath.Dir(filepath.Dir(k.Modules)))
	var order []string
	packed := map[string]bool{}
	for _, module := range modules {
		text, err := output(context.Background(), "", "modprobe", "-C", "/dev/null", "-d", base, "-S", k.Version, "--show-depends", module)
		if err != nil {
			return fmt.Errorf("kernel %s: %w", k.Version, err)
		}
		for line := range strings.Lines(text) {
			fields := strings.Fields(line)
			if len(fields) < 2 || fields[0] != "insmod" || packed[fields[1]] {
				continue
			}
			packed[fields[1]] = true
			name, err := packModule(a, fields[1])
			if err != nil {
				return err
			}
			order = append(order, name)
		}
	}
	a.File("modules", 0o644, []byte(strings.Join(order, "\n")+"\n"))
	return nil
}

// packModule adds one module and returns its path in the guest.
func packModule(a *Archive, path string) (string, error) {
	plain, packed := strings.CutSuffix(filepath.Base(path), ".xz")
	name := "/lib/modules/" + plain
	if !packed {
		if _, err := os.Stat(path); err != nil {
			return "", err
		}
		a.Copy(name, 0o644, path)
		return name, nil
	}
	content, err := output(context.Background(), "", "xz", "-dc", path)
	if err != nil {
		return "", err
	}
	a.File(name, 0o644, []byte(content))
	return name, nil
}
