package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"

	"postern/agent/control"
	"postern/agent/endpoint"
	"postern/platform"
	"postern/store"
)

// workloads are the programs that prove themselves by a secret. The file keeps
// digests only; a secret is shown once, when it is made. Safe for concurrent use.
type workloads struct {
	host platform.Host
	path string

	mu      sync.Mutex
	digests map[string]string // name to lower-case hex SHA-256
	live    map[string]*endpoint.Workload
}

const (
	workloadFile    = "workloads.json"
	maxWorkloadFile = 64 << 10
)

// openWorkloads reads the digests. A workload without one gets a random digest
// that no secret has, so that nobody is let in before `postern env NAME`.
func openWorkloads(host platform.Host, names []string, given map[string]store.Secret) (*workloads, error) {
	w := &workloads{
		host: host, path: filepath.Join(host.Dirs().State, workloadFile),
		digests: map[string]string{}, live: map[string]*endpoint.Workload{},
	}
	if err := w.load(); err != nil {
		return nil, err
	}
	for _, name := range names {
		digest := unmatched()
		if secret, ok := given[name]; ok {
			digest = endpoint.Digest(secret)
		} else if raw, err := hex.DecodeString(w.digests[name]); err == nil && len(raw) == len(digest) {
			copy(digest[:], raw)
		}
		w.live[name] = endpoint.NewWorkload(name, digest)
	}
	return w, nil
}

func unmatched() (digest [32]byte) {
	_, _ = rand.Read(digest[:]) // never fails
	return digest
}

func (w *workloads) load() error {
	f, err := w.host.OpenFile(w.path, os.O_RDONLY, platform.Private)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return accessFault("workloads-file", err)
	}
	defer func() { _ = f.Close() }()
	raw := make([]byte, maxWorkloadFile)
	n, err := f.Read(raw)
	if err == nil {
		err = json.Unmarshal(raw[:n], &w.digests)
	}
	if err != nil {
		return control.NewFault(control.ExitFailed, "workloads-file", "sudo rm "+w.path+"   # then: postern env NAME --rotate, for each", "%s: %w", w.path, err)
	}
	return nil
}

func (w *workloads) all() []*endpoint.Workload {
	list := make([]*endpoint.Workload, 0, len(w.live))
	for _, one := range w.live {
		list = append(list, one)
	}
	return list
}

// secret makes the secret of a workload, or with rotate a new one.
func (w *workloads) secret(name string, rotate bool) (store.Secret, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	one, ok := w.live[name]
	if !ok {
		return store.Secret{}, control.NewFault(control.ExitUsage, "unknown-workload", "postern config print", "env: the configuration has no workload %q", name)
	}
	if w.digests[name] != "" && !rotate {
		return store.Secret{}, control.NewFault(control.ExitFailed, "secret-shown", "sudo postern env "+name+" --rotate   # makes a new one; the old one works for 10 more minutes",
			"env: the secret of %s was shown when it was made; only its digest is kept", name)
	}
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails
	secret := store.NewSecret(base64.RawURLEncoding.EncodeToString(raw))
	digest := endpoint.Digest(secret)
	next := map[string]string{name: hex.EncodeToString(digest[:])}
	for other, d := range w.digests {
		if other != name {
			next[other] = d
		}
	}
	content, err := json.Marshal(next)
	if err == nil {
		err = w.host.WriteFile(w.path, content, platform.Private)
	}
	if err != nil {
		return store.Secret{}, fmt.Errorf("env: the new secret could not be kept, the old one stays: %w", err)
	}
	w.digests = next
	one.Rotate(digest)
	return secret, nil
}

// revokeWorkloads makes every secret worthless, those of former owners too. It needs
// no configuration: without an agent there is only the file.
func revokeWorkloads(host platform.Host, w *workloads) error {
	if err := os.Remove(filepath.Join(host.Dirs().State, workloadFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the secrets of workloads are still good: %w", err)
	}
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.digests = map[string]string{}
	for _, one := range w.live {
		one.Revoke(unmatched())
	}
	return nil
}

// Workload implements control.Agent.
func (g *graph) Workload(name string, rotate bool) (control.Workload, error) {
	if g.mode == "dev" {
		return control.Workload{}, control.NewFault(control.ExitUsage, "dev-workload", "postern dev   # prints both variables", "env: the trial's secret is printed when it starts")
	}
	secret, err := g.workloads.secret(name, rotate)
	if err != nil {
		return control.Workload{}, err
	}
	return control.Workload{Endpoint: g.workloadURL(name), Secret: secret.Reveal()}, nil
}

// workloadURL is where a workload asks: under the first name that its
// container knows, or its address.
func (g *graph) workloadURL(name string) string {
	for _, w := range g.cfg.Workloads {
		if w.Name != name {
			continue
		}
		host, port, err := net.SplitHostPort(w.Listen)
		if ip := net.ParseIP(host); err == nil && len(w.Hosts) > 0 && ip != nil && !ip.IsLoopback() {
			host = w.Hosts[0]
		}
		return "http://" + net.JoinHostPort(host, port) + "/msi/token"
	}
	return ""
}
