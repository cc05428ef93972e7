//go:build linux

package inits

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"postern/crosscompile/qemu"
)

// change lets a test spoil a root before it is packed.
type change func(root string) error

// buildRoot makes the disk of a board with s: the packages, the board's own
// files, what `postern install` writes, the story, and nothing else.
func buildRoot(t *testing.T, arch string, s system, spoil change) (image string) {
	t.Helper()
	ctx := t.Context()
	base, err := baseTree(ctx, arch, s.packages)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	if _, err := command(ctx, "cp", "-a", "--reflink=auto", base, root); err != nil {
		t.Fatal(err)
	}
	if err := board(root, s); err != nil {
		t.Fatal(err)
	}
	if err := product(ctx, root, arch, s); err != nil {
		t.Fatal(err)
	}
	if err := addStory(ctx, root, arch, s); err != nil {
		t.Fatal(err)
	}
	if spoil != nil {
		if err := spoil(root); err != nil {
			t.Fatal(err)
		}
	}
	image = filepath.Join(dir, "disk")
	if _, err := command(ctx, "mke2fs", "-q", "-t", "ext4", "-d", root, image, "400M"); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	return image
}

// board writes what is there before the product comes.
func board(root string, s system) error {
	if err := os.MkdirAll(filepath.Join(root, "etc/s6/service"), 0o755); err != nil {
		return err
	}
	if err := write(root, 0o644, s.files); err != nil {
		return err
	}
	for name, target := range s.links {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			return err
		}
	}
	return write(root, 0o755, s.scripts)
}

// product is what the integrator does: install, and a configuration. The board
// has a clock with a battery, and says so.
func product(ctx context.Context, root, arch string, s system) error {
	host, err := qemu.BuildAgent(ctx, runtime.GOARCH)
	if err != nil {
		return err
	}
	target, err := qemu.BuildAgent(ctx, arch)
	if err != nil {
		return err
	}
	args := append([]string{"install", "--root", root, "--init", s.name, "--binary", target}, s.install...)
	if _, err := command(ctx, host, args...); err != nil {
		return err
	}
	return write(root, 0o644, map[string]string{"etc/postern/postern.toml": "clock = \"trusted\"\n"})
}

// addStory adds the story program, its plan, and the member to the group.
func addStory(ctx context.Context, root, arch string, s system) error {
	guest, err := qemu.BuildGuest(ctx, arch)
	if err != nil {
		return err
	}
	program, err := os.ReadFile(guest)
	if err != nil {
		return err
	}
	document, err := json.Marshal(s.plan)
	if err != nil {
		return err
	}
	if err := write(root, 0o755, map[string]string{"story/guest": string(program)}); err != nil {
		return err
	}
	if err := write(root, 0o644, map[string]string{"story/plan.json": string(document)}); err != nil {
		return err
	}
	return replace(filepath.Join(root, "etc/group"), "himds:x:", func(line string) string {
		return strings.TrimSuffix(line, ":") + ":member"
	})
}

// replace changes the one line of a file that has a prefix.
func replace(path, prefix string, by func(line string) string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	lines := strings.Split(string(content), "\n")
	found := 0
	for i, line := range lines {
		if strings.HasPrefix(line, prefix) {
			lines[i] = by(line)
			found++
		}
	}
	if found != 1 {
		return fmt.Errorf("%s has %d lines that begin with %q, want one", path, found, prefix)
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(strings.Join(lines, "\n")), info.Mode().Perm())
}
