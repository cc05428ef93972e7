package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	binary   = "/run/tools/postern"
	settings = "/run/postern.toml"
	ca       = "/run/ca"
	vault    = "https://vault.azure.net"
	storage  = "https://storage.azure.com"
)

// identity is what the site authority says of one.
type identity struct {
	Kind       string `json:"kind"`
	Name       string `json:"name"`
	State      string `json:"state"`
	ClientID   string `json:"client_id"`
	ObjectID   string `json:"object_id"`
	ResourceID string `json:"resource_id"`
}

// world is a machine with an agent and, for as long as it is not cut, a site
// authority.
type world struct {
	authority, agent *process
	system, user     identity
	app              []string // the variables of the workload
	life             string   // of the authority's certificates; empty for the usual one
}

// process is the product in a child process.
type process struct {
	cmd    *exec.Cmd
	mu     sync.Mutex
	output bytes.Buffer
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.Write(b)
}

func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

func start(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(binary, args...)} //nolint:noctx // ends with its namespace, or by stop
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.stop(t)
		if t.Failed() {
			t.Logf("postern %s said:\n%s", args[0], p.said())
		}
	})
	return p
}

// stop ends the process as an init system does; a second call does nothing.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if p.cmd.ProcessState != nil {
		return
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("stop: %v", err)
	}
	late := time.AfterFunc(20*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("%s: %v", strings.Join(p.cmd.Args, " "), err)
	}
}

// newWorld has a running agent that is not connected, and no authority.
func newWorld(t *testing.T) *world {
	t.Helper()
	furnish(t)
	write(t, settings, `state_dir = "/run/state"
offline_after = "1m"
[imds]
enabled = true
[[workload]]
name = "app"
listen = "127.0.0.1:40400"
`)
	w := new(world)
	w.startAgent(t)
	return w
}

func (w *world) startAgent(t *testing.T) {
	t.Helper()
	w.agent = start(t, "run", "--config", settings, "--user", "postern:himds")
	must(t, binary, "wait", "--for", "ready", "--timeout", "20s", "--config", settings)
}

// restart stops the agent, changes something, and starts it again.
func (w *world) restart(t *testing.T, change func()) {
	t.Helper()
	w.agent.stop(t)
	change()
	w.startAgent(t)
}

// connect enrolls the device at a new site authority, with one user-assigned
// identity beside its own.
func (w *world) connect(t *testing.T) {
	t.Helper()
	w.startAuthority(t)
	for _, resource := range []string{vault, storage} {
		must(t, binary, "authority", "resource", "add", resource, "--dir", ca)
	}
	must(t, binary, "connect", "--config", settings, "--claim-file", w.claim(t))
	must(t, binary, "authority", "identity", "create", "telemetry", "--dir", ca)
	must(t, binary, "authority", "identity", "assign", "telemetry", "gw-1", "--dir", ca)
	w.bothConnected(t)
	w.app = strings.Fields(output(t, "env", "app", "--rotate", "--format", "dotenv", "--config", settings))
}

// claim is a file with the right to connect this machine.
func (w *world) claim(t *testing.T, more ...string) (path string) {
	t.Helper()
	path = t.TempDir() + "/claim"
	claim := output(t, append([]string{"authority", "claim", "gw-1", "--dir", ca}, more...)...)
	if err := os.WriteFile(path, []byte(claim), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// bothConnected lets the agent ask which identities are assigned, as it does at
// a start, and waits until it has them.
func (w *world) bothConnected(t *testing.T) {
	t.Helper()
	w.restart(t, func() {})
	eventually(t, "both identities are connected", func() bool {
		w.system, w.user = identity{}, identity{}
		for _, id := range identities(t) {
			if id.State != "Connected" {
				return false
			}
			if id.Kind == "SystemAssigned" {
				w.system = id
			} else {
				w.user = id
			}
		}
		return w.system.ClientID != "" && w.user.ClientID != ""
	})
}

func (w *world) startAuthority(t *testing.T) {
	t.Helper()
	args := []string{"authority", "run", "--dir", ca, "--listen", "127.0.0.1:8443"}
	if w.life != "" {
		args = append(args, "--certificate-life", w.life)
	}
	w.authority = start(t, args...)
	eventually(t, "the authority answers", func() bool {
		return exec.CommandContext(t.Context(), binary, "authority", "status", "--dir", ca).Run() == nil
	})
}

// cut takes the authority away, as a lost network does.
func (w *world) cut(t *testing.T) {
	t.Helper()
	w.authority.stop(t)
}

func output(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary, args...).Output()
	if err != nil {
		t.Fatalf("postern %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func identities(t *testing.T) []identity {
	t.Helper()
	var list []identity
	decoder := json.NewDecoder(strings.NewReader(output(t, "identity", "list", "--json", "--config", settings)))
	for decoder.More() {
		var id identity
		if err := decoder.Decode(&id); err != nil {
			t.Fatal(err)
		}
		list = append(list, id)
	}
	return list
}

// state is what status says of the device.
func state(t *testing.T) string {
	t.Helper()
	var s struct{ State string }
	if err := json.Unmarshal([]byte(output(t, "status", "--json", "--config", settings)), &s); err != nil {
		t.Fatal(err)
	}
	return s.State
}

// eventually waits until done, two minutes at most: the agent looks at the
// world every half minute at the latest.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for !done() {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("%s: not within two minutes", what)
		}
	}
}
