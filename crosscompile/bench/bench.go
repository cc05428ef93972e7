//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"postern/crosscompile"
)

// Loopback addresses of the run; none is a default of the product, and none a
// port that the system hands out by itself.
const (
	authorityAddr = "127.0.0.1:14443"
	arcAddr       = "127.0.0.1:14342"
	arcAddr6      = "[::1]:14342"
	imdsAddr      = "127.0.0.1:14343"
	appAddr       = "127.0.0.1:14344"
	floorAddr     = "127.0.0.1:14345"
	resource      = "https://vault.azure.net"
	resources     = 10
)

// bench is one agent with its authority, made for the run and removed after it.
type bench struct {
	dir, runtime     string
	mounted          bool // a tmpfs at runtime
	postern, floor   string
	secret           string // of the App Service pair
	agent, authority *exec.Cmd
}

func newBench(ctx context.Context) (*bench, error) {
	base := "/var/lib" // a state directory's parents must be safe: /tmp is not
	if os.Geteuid() != 0 {
		home, err := os.UserCacheDir()
		if err != nil {
			return nil, err
		}
		base = home
	}
	dir, err := os.MkdirTemp(base, "postern-bench-")
	if err != nil {
		return nil, err
	}
	b := &bench{dir: dir, floor: filepath.Join(dir, "floor")}
	if err := b.prepare(ctx); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *bench) close() {
	stopProcess(b.agent)
	stopProcess(b.authority)
	b.leaveRuntimeDir()
	_ = os.RemoveAll(b.dir)
}

func stopProcess(cmd *exec.Cmd) {
	if cmd == nil || cmd.Process == nil {
		return
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
}

// prepare builds both programs, enrols a device and fills its cache.
func (b *bench) prepare(ctx context.Context) error {
	target := crosscompile.Target{OS: "linux", Arch: runtime.GOARCH}
	if err := b.runtimeDir(); err != nil {
		return err
	}
	var err error
	if b.postern, err = crosscompile.Build(ctx, ".", b.dir, target, ""); err != nil {
		return err
	}
	args := append(crosscompile.Flags(""), "-o", b.floor, "./crosscompile/bench/floor")
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build floor: %w\n%s", err, out)
	}
	if err := os.WriteFile(b.path("postern.toml"), []byte(b.config()), 0o600); err != nil {
		return err
	}
	if err := b.startAuthority(ctx); err != nil {
		return err
	}
	claim, err := b.verb(ctx, "", "authority", "claim", "bench", "--dir", b.path("ca"))
	if err != nil {
		return err
	}
	if _, err := b.verb(ctx, "", "authority", "resource", "add", "*", "--dir", b.path("ca")); err != nil {
		return err
	}
	if _, err := b.verb(ctx, claim, "connect", "--config", b.path("postern.toml"), "--claim-file", "-"); err != nil {
		return err
	}
	return b.startAgent(ctx)
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

func (b *bench) config() string {
	return fmt.Sprintf(`state_dir = %q
runtime_dir = %q
tokens_dir = %q
group = "%d"
log_level = "warn"
[arc]
listen = [%q, %q]
[imds]
enabled = true
allow = "anyone"
listen = [%q]
[[workload]]
name = "bench"
listen = %q
`, b.path("state"), b.runtime, filepath.Join(b.runtime, "tokens"), os.Getegid(), arcAddr, arcAddr6, imdsAddr, appAddr)
}

// verb runs one command of the product and returns what it printed.
func (b *bench) verb(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, b.postern, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var words bytes.Buffer
	cmd.Stderr = &words
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("postern %s: %w\n%s", args[0], err, words.String())
	}
	return string(out), nil
}

func (b *bench) startAuthority(ctx context.Context) error {
	b.authority = exec.CommandContext(ctx, b.postern, "authority", "run", "--dir", b.path("ca"), "--listen", authorityAddr)
	if err := b.authority.Start(); err != nil {
		return err
	}
	return poll(ctx, func() bool {
		_, err := b.verb(ctx, "", "authority", "status", "--dir", b.path("ca"))
		return err == nil
	})
}

// startAgent starts the agent, makes the workload's secret once, and asks for
// every resource.
func (b *bench) startAgent(ctx context.Context) error {
	b.agent = exec.CommandContext(ctx, b.postern, "run", "--config", b.path("postern.toml"))
	b.agent.Stderr = os.Stderr
	if err := b.agent.Start(); err != nil {
		return err
	}
	if _, err := b.verb(ctx, "", "wait", "--for", "connected", "--config", b.path("postern.toml")); err != nil {
		return err
	}
	out, err := b.verb(ctx, "", "env", "bench", "--rotate", "--format", "dotenv", "--config", b.path("postern.toml"))
	if err != nil {
		return err
	}
	_, secret, _ := strings.Cut(out, "IDENTITY_HEADER=")
	b.secret = strings.TrimSpace(secret)
	for i := range resources {
		if err := b.fetch(ctx, i, false); err != nil {
			return err
		}
	}
	return nil
}

func resourceName(i int) string {
	if i == 0 {
		return resource
	}
	return "https://resource-" + strconv.Itoa(i) + ".example"
}

func (b *bench) fetch(ctx context.Context, i int, refresh bool) error {
	args := []string{"token", "--config", b.path("postern.toml"), "--resource", resourceName(i)}
	if refresh {
		args = append(args, "--refresh")
	}
	_, err := b.verb(ctx, "", args...)
	return err
}

// poll tries every millisecond until f says yes.
func poll(ctx context.Context, f func() bool) error {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(30 * time.Second)
	for !f() {
		select {
		case <-ticker.C:
		case <-deadline:
			return fmt.Errorf("nothing answered within 30 s")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func imdsURL() string {
	return "http://" + imdsAddr + "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=" + resource
}

// answers reports whether the agent gives a token.
func answers(client *http.Client) bool {
	req, err := http.NewRequest(http.MethodGet, imdsURL(), nil)
	if err != nil {
		return false
	}
	req.Header.Set("Metadata", "true")
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func machine() string {
	cpu := runtime.GOARCH
	if raw, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.SplitSeq(string(raw), "\n") {
			if name, ok := strings.CutPrefix(line, "model name"); ok {
				cpu = strings.Trim(name, "\t :")
				break
			}
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	return fmt.Sprintf("%d x %s, load %s, %s", runtime.NumCPU(), cpu, strings.Join(strings.Fields(string(load))[:1], ""), runtime.Version())
}
