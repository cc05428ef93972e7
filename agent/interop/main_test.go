package interop

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

const (
	insideVariable = "POSTERN_INTEROP_INSIDE" // set in the namespace
	toolsVariable  = "POSTERN_INTEROP_TOOLS"  // where the binaries are
	buildTime      = 5 * time.Minute
)

// TestMain builds what the tests run, outside of any namespace: that may need
// the network, the tests do not.
func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if os.Getenv(insideVariable) != "" || os.Geteuid() != 0 {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "postern-interop-")
	defer func() { _ = os.RemoveAll(dir) }() // an empty name removes nothing
	if err == nil {
		err = build(dir)
	}
	if err == nil {
		err = os.Setenv(toolsVariable, dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	flag.Parse()
	// Most of the time the clients of one world wait before they try again.
	if err := flag.Set("test.parallel", "3"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// needed are the programs that the tests call, and Debian's package for each.
func needed() map[string]string {
	return map[string]string{
		"unshare": "util-linux", "mount": "mount", "ip": "iproute2", "bash": "bash", "curl": "curl",
		"java": "default-jdk-headless", "javac": "default-jdk-headless",
	}
}

func build(dir string) error {
	for program, pkg := range needed() {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is missing; run: apt-get install -y --no-install-recommends %s", program, pkg)
		}
	}
	for _, file := range []string{"node_modules/@azure/identity/package.json", nodeOf(runtime.GOARCH)} {
		if _, err := os.Stat(filepath.Join("js", file)); err != nil {
			return fmt.Errorf("%s of the JavaScript clients is missing; run: (cd agent/interop/js && npm ci)", file)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // other accounts run what is in it
		return err
	}
	for _, b := range []struct {
		dir  string
		args []string
	}{
		{"../..", []string{"go", "build", "-tags", "nethttpomithttp2", "-o", filepath.Join(dir, "postern"), "./agent"}},
		{"goclient", []string{"go", "build", "-o", filepath.Join(dir, "azidentity-1.15.0"), "."}},
		{"goclient", []string{"go", "build", "-modfile", "azidentity-1.10.1.mod", "-o", filepath.Join(dir, "azidentity-1.10.1"), "."}},
		{"goclient", []string{"go", "build", "-modfile", "azidentity-1.5.2.mod", "-tags", "azidentity1_5", "-o", filepath.Join(dir, "azidentity-1.5.2"), "."}},
		{"java", []string{"javac", "-d", dir, "Check.java"}},
	} {
		if err := buildOne(b.dir, b.args); err != nil {
			return err
		}
	}
	return nil
}

func buildOne(dir string, args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), buildTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}
