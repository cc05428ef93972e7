//go:build interop

package authorities

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	stepCAVersion = "v0.30.2"
	oidcVersion   = "9.13.3"

	buildTime = 20 * time.Minute // step-ca, cold, on a small machine
	serverAge = 5 * time.Minute  // no server lives longer
)

// cacheDir is where fetched tools stay between runs.
func cacheDir(t *testing.T, name string) string {
	t.Helper()
	base := os.Getenv("POSTERN_INTEROP_CACHE")
	if base == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		base = filepath.Join(user, "postern-interop")
	}
	dir := filepath.Join(base, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// fetch runs a command that brings a tool; it fails the test if it cannot.
func fetch(t *testing.T, dir string, env []string, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), buildTime)
	defer cancel()
	t.Logf("fetching: %s %s", name, strings.Join(args, " "))
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s cannot be had: %v\n%s", name, err, out)
	}
}

// stepCABinary is the path of the real step-ca.
func stepCABinary(t *testing.T) string {
	t.Helper()
	dir := cacheDir(t, "step-ca-"+stepCAVersion)
	binary := filepath.Join(dir, "step-ca")
	if _, err := os.Stat(binary); err != nil {
		fetch(t, dir, []string{"GOBIN=" + dir, "CGO_ENABLED=0", "GOFLAGS=-mod=mod"}, "go", "install", "-ldflags=-s -w",
			"github.com/smallstep/certificates/cmd/step-ca@"+stepCAVersion)
	}
	return binary
}

// oidcModules is the directory whose node_modules hold oidc-provider.
func oidcModules(t *testing.T) string {
	t.Helper()
	dir := cacheDir(t, "oidc-provider-"+oidcVersion)
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "oidc-provider", "package.json")); err == nil {
		return dir
	}
	manifest, err := os.ReadFile(filepath.Join("testdata", "oidc-provider", "package.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "package.json"), manifest, 0o644); err != nil {
		t.Fatal(err)
	}
	fetch(t, dir, nil, "npm", "install", "--no-fund", "--no-audit", "--silent")
	return dir
}

// process is a server in a child process. It ends with its test.
type process struct {
	mu     sync.Mutex
	output bytes.Buffer
}

// start runs a server with input on its stdin, which is then held open, and
// hands every line of its stdout to line.
func start(t *testing.T, input []byte, env []string, line func(string), name string, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), serverAge)
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = 5 * time.Second
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p := new(process)
	cmd.Stderr = writer(p.add)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		for s := bufio.NewScanner(stdout); s.Scan(); {
			p.add(append(s.Bytes(), '\n'))
			if line != nil {
				line(s.Text())
			}
		}
	})
	t.Cleanup(func() {
		_ = stdin.Close() // a keeper ends its server first
		stopped := time.AfterFunc(5*time.Second, cancel)
		reading.Wait()
		stopped.Stop()
		cancel() // kills this process and no other
		var exit *exec.ExitError
		if err := cmd.Wait(); err != nil && !errors.As(err, &exit) && !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", name, p.said())
		}
	})
	if _, err := stdin.Write(input); err != nil {
		t.Fatalf("%s takes no input: %v\n%s", name, err, p.said())
	}
	return p
}

type writer func([]byte)

func (w writer) Write(b []byte) (int, error) {
	w(b)
	return len(b), nil
}

func (p *process) add(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.output.Write(b)
}

func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

// eventually tries f until it is done, 30 s at most.
func eventually(t *testing.T, what string, f func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		err := f(ctx)
		if err == nil {
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// freePort is a port on loopback on which nothing listens.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func write(t *testing.T, path string, content []byte) string {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
