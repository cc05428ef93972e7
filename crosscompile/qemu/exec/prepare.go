//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"postern/crosscompile/qemu"
)

// testDir is where the scratch disk is mounted.
const testDir = "/job/disk"

// plan is a machine that is ready to start.
type plan struct {
	spec     qemu.Spec
	job      qemu.Job
	deadline time.Duration
	back     map[string]string // path in the guest to path on the host; of a folder with a slash at its end
}

func prepare(ctx context.Context, o options, work string) (*plan, error) {
	kernel, err := qemu.FetchKernel(ctx, o.kernel)
	if err != nil {
		return nil, err
	}
	p := &plan{back: map[string]string{}}
	args, timeout := p.redirect(o.args)
	if p.deadline = timeout + time.Minute; o.deadline > 0 {
		p.deadline = o.deadline
	}
	name := filepath.Base(o.binary)
	a := &qemu.Archive{}
	dir, err := pack(ctx, a, o.with)
	if err != nil {
		return nil, err
	}
	p.job = qemu.Job{ID: rand.Text(), Mode: "job", Path: "/job/" + name, Args: args, Dir: dir, Env: environment(o.env)}
	for path := range p.back {
		p.job.Bring = append(p.job.Bring, path)
	}
	a.Copy("job/"+name, 0o755, o.binary)
	a.Dir("job/out/cover", 0o777)
	modules, err := p.disks(ctx, o, work)
	if err != nil {
		return nil, err
	}
	p.spec.Arch, p.spec.CPU, p.spec.MemMB = o.arch, o.cpu, o.memory
	p.spec.Kernel, p.spec.Initrd, p.spec.Job = kernel.Image, filepath.Join(work, "initrd"), p.job.ID
	if o.guest != "" {
		return p, p.otherGuest(a, kernel, o.guest, modules)
	}
	return p, qemu.Initrd(ctx, kernel, o.arch, p.spec.Initrd, p.job, a, modules...)
}

// otherGuest packs the initramfs with a PID 1 of the caller's own.
func (p *plan) otherGuest(a *qemu.Archive, kernel qemu.Kernel, guest string, modules []string) error {
	content, err := json.Marshal(p.job)
	if err != nil {
		return err
	}
	return qemu.Pack(kernel, guest, p.spec.Initrd, content, a, modules...)
}

// disks adds the root with further programs and the scratch disk, and returns
// the modules that they need.
func (p *plan) disks(ctx context.Context, o options, work string) ([]string, error) {
	// what the tests of a platform ask the kernel for
	modules := []string{"ext4", "inet_diag", "tcp_diag", "unix_diag", "netlink_diag", "veth", "dummy"}
	if o.root != "" {
		image, err := qemu.FetchRoot(ctx, o.arch, strings.Split(o.root, ",")...)
		if err != nil {
			return nil, err
		}
		p.job.Root = &qemu.Mount{Device: "/dev/" + letter(p.spec.Disks), Type: "ext4", Options: "noatime"}
		p.spec.Disks = append(p.spec.Disks, qemu.Disk{File: image, Snapshot: true})
	}
	if o.disk == "" {
		return modules, nil
	}
	kind, size, ok := strings.Cut(o.disk, ":")
	if !ok || (kind != "ext4" && kind != "f2fs") {
		return nil, fmt.Errorf("-disk is %q, want ext4:SIZE or f2fs:SIZE", o.disk)
	}
	image := filepath.Join(work, "disk")
	if err := makeDisk(ctx, image, kind, size); err != nil {
		return nil, err
	}
	p.job.Mounts = append(p.job.Mounts, qemu.Mount{Device: "/dev/" + letter(p.spec.Disks), Dir: testDir, Type: kind, Options: "noatime"})
	p.job.Env = append(p.job.Env, "TMPDIR="+testDir, "POSTERN_TEST_DIR="+testDir)
	p.spec.Disks = append(p.spec.Disks, qemu.Disk{File: image, Scratch: true})
	return append(modules, kind), nil
}

func letter(disks []qemu.Disk) string { return "vd" + string(rune('a'+len(disks))) }

func makeDisk(ctx context.Context, image, kind, size string) error {
	mkfs, err := qemu.Find("mkfs." + kind)
	if err != nil {
		return err
	}
	if words, err := exec.CommandContext(ctx, "truncate", "-s", size, image).CombinedOutput(); err != nil {
		return fmt.Errorf("truncate -s %s: %w: %s", size, err, words)
	}
	if words, err := exec.CommandContext(ctx, mkfs, "-q", image).CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.%s: %w: %s", kind, err, words)
	}
	return nil
}

// environment is NAME=value of the names that are set.
func environment(names string) []string {
	var list []string
	for _, name := range strings.Split(names, ",") {
		if value, set := os.LookupEnv(name); set {
			list = append(list, name+"="+value)
		}
	}
	return list
}

// source is the project's place in the guest.
const source = "/job/src"

// pack adds the sources and testdata of the package in the working directory
// and what else of the project was named, and returns the package's folder in the guest.
func pack(ctx context.Context, a *qemu.Archive, with string) (string, error) {
	root, err := qemu.Root(ctx)
	if err != nil {
		return "", err
	}
	here, err := os.Getwd()
	if err != nil {
		return "", err
	}
	rel, err := filepath.Rel(root, here)
	if err != nil || !filepath.IsLocal(rel) {
		return "", fmt.Errorf("%s is not below the project %s", here, root)
	}
	names, err := filepath.Glob(filepath.Join(here, "*.go"))
	if err != nil {
		return "", err
	}
	if _, err := os.Stat("testdata"); err == nil {
		names = append(names, filepath.Join(here, "testdata"))
	}
	for _, name := range strings.FieldsFunc(with, func(r rune) bool { return r == ',' }) {
		names = append(names, filepath.Join(root, name))
	}
	a.Dir(filepath.Join(source, rel), 0o755)
	for _, name := range names {
		if err := packPath(a, root, name); err != nil {
			return "", err
		}
	}
	return filepath.Join(source, rel), nil
}

func packPath(a *qemu.Archive, root, name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(root, name)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return a.Tree(filepath.Join(source, rel), name)
	}
	a.Copy(filepath.Join(source, rel), info.Mode(), name)
	return nil
}
