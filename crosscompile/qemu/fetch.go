//go:build linux

package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// fresh is how long a fetched package is used without asking for a newer one.
const fresh = 7 * 24 * time.Hour

// Kernel is an unpacked kernel.
type Kernel struct {
	Image   string // vmlinuz, bootable with -kernel
	Modules string // the folder lib/modules/VERSION
	Version string
}

// FetchPackage unpacks the Debian package of another architecture and returns
// its folder in the cache, which nobody may change. A week old one is used
// without asking, an older one if the network is away.
func FetchPackage(ctx context.Context, name, arch string) (string, error) {
	return fetch(ctx, name+"-"+arch, arch, func(*apt) (string, error) { return name, nil })
}

// fetch resolves a package's name and unpacks it under pointer, which remembers where.
func fetch(ctx context.Context, pointer, arch string, resolve func(*apt) (string, error)) (string, error) {
	return fetchTo(ctx, pointer, arch, func(a *apt) (string, error) {
		name, err := resolve(a)
		if err != nil {
			return "", err
		}
		r, err := a.record(ctx, name)
		if err != nil {
			return "", err
		}
		dir := filepath.Join(filepath.Dir(a.dir), fmt.Sprintf("%s_%s_%s", name, strings.ReplaceAll(r.version, ":", "%3a"), arch))
		if _, err := os.Stat(dir); err == nil {
			return dir, nil
		}
		return dir, a.unpack(ctx, name, r, dir)
	})
}

// fetchTo makes something that takes the network, if what pointer names is
// missing or old.
func fetchTo(ctx context.Context, pointer, arch string, do func(*apt) (string, error)) (string, error) {
	cache, err := Cache()
	if err != nil {
		return "", err
	}
	release, err := hold(cache)
	if err != nil {
		return "", err
	}
	defer release()
	pointer = filepath.Join(cache, pointer+".now")
	known, age := pointed(pointer)
	if known != "" && age < fresh {
		return known, nil
	}
	a, err := newApt(ctx, cache, arch)
	dir := ""
	if err == nil {
		dir, err = do(a)
	}
	switch {
	case err != nil && known != "":
		return known, nil // offline: an old one is better than none
	case err != nil:
		return "", err
	}
	return dir, os.WriteFile(pointer, []byte(dir), 0o644)
}

// pointed reads what a pointer names, "" if that is not there, and its age.
func pointed(pointer string) (string, time.Duration) {
	content, err := os.ReadFile(pointer)
	if err != nil {
		return "", 0
	}
	if _, err := os.Stat(string(content)); err != nil {
		return "", 0
	}
	info, err := os.Stat(pointer)
	if err != nil {
		return "", 0
	}
	return string(content), time.Since(info.ModTime())
}

// FetchKernel fetches Debian's kernel of a flavour: cloud-arm64, cloud-amd64,
// arm64, amd64, arm64-16k. The name changes with every update, so apt is asked for it.
func FetchKernel(ctx context.Context, flavour string) (Kernel, error) {
	arch := "arm64"
	if strings.Contains(flavour, "amd64") {
		arch = "amd64"
	}
	dir, err := fetch(ctx, "kernel-"+flavour, arch, func(a *apt) (string, error) { return a.kernel(ctx, flavour) })
	if err != nil {
		return Kernel{}, fmt.Errorf("kernel %s: %w", flavour, err)
	}
	release, err := hold(filepath.Dir(dir)) // the index of the modules is made once
	if err != nil {
		return Kernel{}, err
	}
	defer release()
	return openKernel(ctx, dir)
}

// kernel is the name of the newest unsigned kernel of a flavour.
func (a *apt) kernel(ctx context.Context, flavour string) (string, error) {
	text, err := a.run(ctx, "", "apt-cache", "pkgnames", "linux-image-")
	if err != nil {
		return "", err
	}
	fits := regexp.MustCompile(`^linux-image-[0-9.]+(\+deb[0-9]+)?(-[0-9]+)?-` + regexp.QuoteMeta(flavour) + `-unsigned$`)
	// what the current release means by the flavour, where it has such a package
	if meta, err := a.run(ctx, "", "apt-cache", "depends", "linux-image-"+flavour); err == nil {
		if m := regexp.MustCompile(`Depends: (linux-image-\S+)`).FindStringSubmatch(meta); m != nil && fits.MatchString(m[1]+"-unsigned") {
			return m[1] + "-unsigned", nil
		}
	}
	newest := ""
	for name := range strings.FieldsSeq(text) {
		if fits.MatchString(name) && (newest == "" || newer(ctx, name, newest)) {
			newest = name
		}
	}
	if newest == "" {
		return "", errors.New("apt knows no such kernel; its sources must be those of Debian, with the security archive")
	}
	return newest, nil
}

func newer(ctx context.Context, a, b string) bool {
	_, err := output(ctx, "", "dpkg", "--compare-versions", strings.TrimPrefix(a, "linux-image-"), "gt", strings.TrimPrefix(b, "linux-image-"))
	return err == nil
}

// openKernel finds the parts and makes the index of the modules once.
func openKernel(ctx context.Context, dir string) (Kernel, error) {
	if _, err := os.Lstat(filepath.Join(dir, "lib")); errors.Is(err, os.ErrNotExist) { // merged /usr
		if err := os.Symlink("usr/lib", filepath.Join(dir, "lib")); err != nil && !errors.Is(err, os.ErrExist) {
			return Kernel{}, err
		}
	}
	images, _ := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	modules, _ := filepath.Glob(filepath.Join(dir, "lib", "modules", "*"))
	if len(images) != 1 || len(modules) != 1 {
		return Kernel{}, fmt.Errorf("%s: %d kernels and %d folders of modules, want one of each", dir, len(images), len(modules))
	}
	k := Kernel{Image: images[0], Modules: modules[0], Version: filepath.Base(modules[0])}
	if _, err := os.Stat(filepath.Join(k.Modules, "modules.builtin.bin")); err == nil {
		return k, nil
	}
	if _, err := output(ctx, "", "depmod", "-b", dir, k.Version); err != nil {
		return Kernel{}, err
	}
	return k, nil
}
