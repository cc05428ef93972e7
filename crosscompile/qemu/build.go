//go:build linux

package qemu

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"postern/crosscompile"
)

// Root is the folder of the project, found from the working directory.
func Root(ctx context.Context) (string, error) {
	out, err := output(ctx, "", "go", "list", "-m", "-f", "{{.Dir}}", "postern")
	return strings.TrimSpace(out), err
}

// BuildGuest compiles the guest program for an architecture and returns its path.
func BuildGuest(ctx context.Context, arch string) (string, error) {
	return build(ctx, "guest", arch, []string{"build", "-trimpath", "-ldflags", "-s -w"}, "./crosscompile/qemu/guest")
}

// BuildAgent compiles the product for an architecture, as a release is, and returns its path.
func BuildAgent(ctx context.Context, arch string) (string, error) {
	return build(ctx, "postern", arch, crosscompile.Flags(""), "./agent")
}

// build keeps one binary for each content, so that parallel tests may build at
// the same time and nobody's binary is replaced while a machine reads it.
func build(ctx context.Context, name, arch string, flags []string, pkg string) (string, error) {
	root, err := Root(ctx)
	if err != nil {
		return "", err
	}
	cache, err := Cache()
	if err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(cache, "build-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(work) }()
	file := filepath.Join(work, name)
	words := append([]string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + arch, "GOFLAGS=-buildvcs=false", "GOWORK=off", "go"}, flags...)
	if _, err := output(ctx, root, "env", append(words, "-o", file, pkg)...); err != nil {
		return "", err
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(content)
	to := filepath.Join(cache, fmt.Sprintf("%s-%s-%x", name, arch, sum[:6]))
	prune(cache, name+"-"+arch+"-", to)
	return to, os.Rename(file, to)
}

// old is when a build is removed from the cache: no test runs that long.
const old = 24 * time.Hour

func prune(cache, prefix, except string) {
	found, _ := filepath.Glob(filepath.Join(cache, prefix+"*"))
	for _, path := range found {
		if info, err := os.Stat(path); err == nil && path != except && time.Since(info.ModTime()) > old {
			_ = os.Remove(path)
		}
	}
}
