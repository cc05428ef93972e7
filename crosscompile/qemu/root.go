//go:build linux

package qemu

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// FetchRoot makes an ext4 image of Debian packages with all that they depend
// on, unpacked and not configured: programs to call, not a system to boot. The image
// is cached and must be opened with Disk.Snapshot.
func FetchRoot(ctx context.Context, arch string, packages ...string) (string, error) {
	list := slices.Sorted(slices.Values(packages))
	sum := sha256.Sum256([]byte(strings.Join(list, " ")))
	name := fmt.Sprintf("root-%s-%x", arch, sum[:6])
	image, err := fetchTo(ctx, name, arch, func(a *apt) (string, error) { return a.root(ctx, name, list) })
	if err != nil {
		return "", fmt.Errorf("a root with %s: %w", strings.Join(list, " "), err)
	}
	return image, nil
}

// root downloads the packages and everything that they depend on, and makes the image.
func (a *apt) root(ctx context.Context, name string, packages []string) (string, error) {
	archives := filepath.Join(a.dir, "cache", "archives")
	if _, err := a.run(ctx, "", "apt-get", append([]string{"install", "-q", "-y", "--download-only", "--no-install-recommends"}, packages...)...); err != nil {
		return "", err
	}
	debs, err := filepath.Glob(filepath.Join(archives, "*.deb"))
	if err != nil || len(debs) == 0 {
		return "", fmt.Errorf("apt-get brought no package to %s", archives)
	}
	work, err := os.MkdirTemp(a.dir, "root-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(work) }()
	tree := filepath.Join(work, "tree")
	for _, deb := range debs {
		if _, err := output(ctx, "", "dpkg-deb", "-x", deb, tree); err != nil {
			return "", err
		}
		if err := os.Remove(deb); err != nil { // the next root may want others
			return "", err
		}
	}
	if err := furnish(tree); err != nil {
		return "", err
	}
	image := filepath.Join(work, "image")
	if err := makeExt4(ctx, image, tree); err != nil {
		return "", err
	}
	to := filepath.Join(filepath.Dir(a.dir), name+".ext4")
	return to, os.Rename(image, to)
}

// furnish adds what the packages' scripts would have made.
func furnish(tree string) error {
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp", "etc", "root", "job", "mnt", "bin", "var/tmp", "var/lib", "var/opt", "var/log"} {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
			return err
		}
	}
	for _, dir := range []string{"tmp", "var/tmp"} {
		if err := os.Chmod(filepath.Join(tree, dir), 0o777|fs.ModeSticky); err != nil {
			return err
		}
	}
	if err := os.Chmod(tree, 0o755); err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(tree, "bin/sh")); err != nil {
		if err := os.Symlink("bash", filepath.Join(tree, "bin/sh")); err != nil {
			return err
		}
	}
	for name, content := range map[string]string{
		"passwd":        "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
		"group":         "root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\nhimds:x:990:\n",
		"nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
		"hosts":         "127.0.0.1 localhost guest\n::1 localhost\n",
		"machine-id":    "00000000000040008000000000000001\n",
	} {
		if err := os.WriteFile(filepath.Join(tree, "etc", name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// makeExt4 makes an image of a tree with half as much room again. Everybody
// but root does it in a user namespace, so that the files are root's in any case.
func makeExt4(ctx context.Context, image, tree string) error {
	var size int64
	err := filepath.WalkDir(tree, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		size += info.Size() + 4096
		return err
	})
	if err != nil {
		return err
	}
	mke2fs, err := Find("mke2fs")
	if err != nil {
		return err
	}
	words := []string{mke2fs, "-q", "-t", "ext4", "-d", tree, image, fmt.Sprintf("%dM", size*3/2>>20+16)}
	if os.Geteuid() != 0 {
		words = append([]string{"unshare", "-r"}, words...)
	}
	_, err = output(ctx, "", words[0], words[1:]...)
	return err
}
