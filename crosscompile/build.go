package crosscompile

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Target is one platform that a release is built for.
type Target struct {
	OS, Arch, ARM string
	Budget        int64 // bytes that a stripped binary may have; 0 for none
}

const mb = 1 << 20

// Targets are all platforms of a release. The budgets are the published ones.
func Targets() []Target {
	return []Target{
		{OS: "linux", Arch: "arm64", Budget: 9 * mb},
		{OS: "linux", Arch: "amd64", Budget: 9*mb + 3*mb/4},
		{OS: "linux", Arch: "arm", ARM: "7", Budget: 9*mb + mb/4},
		{OS: "linux", Arch: "riscv64", Budget: 9 * mb},
		{OS: "windows", Arch: "amd64", Budget: 9*mb + 3*mb/4},
		{OS: "windows", Arch: "arm64", Budget: 9 * mb},
	}
}

// String is the name used in file names: linux-arm64, linux-armv7.
func (t Target) String() string {
	arch := t.Arch
	if t.ARM != "" {
		arch += "v" + t.ARM
	}
	return t.OS + "-" + arch
}

// Tags leave out HTTP/2, which neither the endpoint nor the authorities need.
const Tags = "nethttpomithttp2"

// inlined are the packages whose functions may be inlined: what the runtime
// is made of. Everywhere else a call costs nothing that anybody could measure,
// and its copies cost 0.7 MB of flash.
func inlined() []string {
	return []string{"runtime/...", "internal/runtime/...", "internal/bytealg"}
}

// linked is what every release is linked with: no symbol table, and on amd64
// no gaps that put each function on a multiple of 32 bytes (0.2 MB).
const linked = "-s -w -funcalign=4"

// Stamp is what a release says of itself in postern version. Empty fields are left out.
type Stamp struct {
	Version, Commit string
	Time            time.Time // the commit's
}

// Extra are further arguments of Build that write the stamp. The toolchain's
// own stamp is left out: it would differ between a checkout and its copy.
func (s Stamp) Extra() []string { return []string{"-buildvcs=false", "-ldflags", linked + s.values()} }

func (s Stamp) values() string {
	var set string
	for _, v := range []struct{ name, value string }{{"version", s.Version}, {"commit", s.Commit}} {
		if v.value != "" {
			set += " -X main." + v.name + "=" + v.value
		}
	}
	if !s.Time.IsZero() {
		set += " -X main.buildTime=" + s.Time.UTC().Format(time.RFC3339)
	}
	return set
}

// Flags are the arguments of go build that every release is built with: no
// build path, no build time, no symbol table, no HTTP/2.
func Flags(version string) []string {
	ldflags := linked + Stamp{Version: version}.values()
	args := []string{"build", "-trimpath", "-tags", Tags, "-ldflags", ldflags, "-gcflags=all=-l"}
	for _, p := range inlined() {
		args = append(args, "-gcflags="+p+"=") // the last pattern that fits a package counts
	}
	return args
}

// Build compiles the module at root for t and returns the path of the binary
// below out. extra is put before the package name. The error holds the compiler's words.
func Build(ctx context.Context, root, out string, t Target, version string, extra ...string) (string, error) {
	name := filepath.Join(out, "postern-"+t.String())
	if t.OS == "windows" {
		name += ".exe"
	}
	args := append(Flags(version), extra...)
	args = append(args, "-o", name, "./agent")
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+t.OS, "GOARCH="+t.Arch, "GOARM="+t.ARM, "GOWORK=off")
	var words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &words, &words
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("go build for %s: %w\n%s", t, err, words.String())
	}
	return name, nil
}
