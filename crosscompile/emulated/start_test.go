//go:build linux

package emulated

import (
	"bufio"
	"context"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/crosscompile"
)

const (
	binaryVariable = "POSTERN_EMULATED_BINARY"
	vault          = "https://vault.azure.net"
)

// TestForeignBinaryServesTokensAndRestartsOffline is the first hour of a
// device, played by the release binary of another processor: it starts with
// its authority, serves the three flavours, stops when asked to, and serves
// the same tokens after a restart without the authority.
func TestForeignBinaryServesTokensAndRestartsOffline(t *testing.T) {
	for _, m := range machines() {
		t.Run(m.name, func(t *testing.T) {
			need(t, m)
			binary := os.Getenv(binaryVariable)
			if binary == "" {
				var err error
				if binary, err = crosscompile.Build(t.Context(), "../..", t.TempDir(), m.target, ""); err != nil {
					t.Fatal(err)
				}
			}
			if inWorld(t, m, 4*time.Minute, binaryVariable+"="+binary) {
				firstHour(t, m, binary)
			}
		})
	}
}

func firstHour(t *testing.T, m machine, binary string) {
	if f, err := elf.Open(binary); err != nil || byte(f.Machine) != m.number {
		t.Fatalf("the binary is not one for %s: %v", m.name, err)
	}
	state := filepath.Join(t.TempDir(), "state")
	began := time.Now()
	a := start(t, binary, state)
	t.Logf("%s: ready after %s", m.name, time.Since(began).Round(time.Millisecond))
	tokens := map[string]string{
		"arc":         a.arc(t, vault),
		"imds":        a.imds(t, vault),
		"app service": a.appService(t, vault),
	}
	a.stop(t)

	began = time.Now()
	a = start(t, binary, state, "--offline")
	t.Logf("%s: ready again, offline, after %s", m.name, time.Since(began).Round(time.Millisecond))
	for flavour, again := range map[string]string{"arc": a.arc(t, vault), "imds": a.imds(t, vault), "app service": a.appService(t, vault)} {
		if again != tokens[flavour] {
			t.Errorf("%s: another token after the restart", flavour)
		}
	}
	status, body := a.ask(t, a.line.IMDS+"/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fother.example", "Metadata", "true")
	if status == http.StatusOK || !strings.Contains(body, "error") {
		t.Errorf("offline, a token that was never fetched: %d %s", status, body)
	}
	a.stop(t)
}

// agent is one run of postern dev.
type agent struct {
	cmd   *exec.Cmd
	state string
	ended chan error
	line  struct {
		Ready      bool   `json:"ready"`
		Endpoint   string `json:"endpoint"`
		IMDS       string `json:"imds"`
		AppService string `json:"app_service"`
	}
}

func start(t *testing.T, binary, state string, args ...string) *agent {
	t.Helper()
	a := &agent{state: state, ended: make(chan error, 1)}
	a.cmd = exec.CommandContext(t.Context(), binary, append([]string{"dev", "--json", "--state-dir", state}, args...)...)
	a.cmd.Stderr = t.Output()
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for !a.line.Ready && lines.Scan() {
		if err := json.Unmarshal(lines.Bytes(), &a.line); err != nil {
			t.Errorf("dev --json prints %q: %v", lines.Text(), err)
		}
	}
	if !a.line.Ready {
		t.Fatalf("the agent ended before it was ready: %v", a.cmd.Wait())
	}
	go func() {
		_, _ = io.Copy(io.Discard, out) // ends with the agent
		a.ended <- a.cmd.Wait()
	}()
	return a
}

// stop asks the agent to end, as an init system does, and wants a clean end.
func (a *agent) stop(t *testing.T) {
	t.Helper()
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-a.ended:
		if err != nil {
			t.Errorf("stopped by SIGTERM: %v", err)
		}
	case <-time.After(60 * time.Second):
		t.Fatal("the agent did not stop within a minute")
	}
}

func (a *agent) ask(t *testing.T, address string, header ...string) (int, string) {
	t.Helper()
	status, _, body := a.request(t, address, header...)
	return status, body
}

func (a *agent) request(t *testing.T, address string, header ...string) (int, http.Header, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close() //nolint:errcheck // read to its end
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, answer.Header, string(body)
}

func token(t *testing.T, status int, body string) string {
	t.Helper()
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusOK || answer.Token == "" {
		t.Fatalf("no token: %d %s (%v)", status, body, err)
	}
	return answer.Token
}

// arc asks as on an Azure Arc server: a challenge first, then the content of
// the file that it names.
func (a *agent) arc(t *testing.T, resource string) string {
	t.Helper()
	address := a.line.Endpoint + "/metadata/identity/oauth2/token?api-version=2020-06-01&resource=" + url.QueryEscape(resource)
	status, header, body := a.request(t, address, "Metadata", "true")
	path, ok := strings.CutPrefix(header.Get("WWW-Authenticate"), "Basic realm=")
	if status != http.StatusUnauthorized || !ok {
		t.Fatalf("no challenge: %d %v %s", status, header, body)
	}
	if !strings.HasPrefix(path, "/var/opt/azcmagent/tokens/") {
		t.Fatalf("the challenge lies in %s, where clients do not look", path)
	}
	key, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	status, body = a.ask(t, address, "Metadata", "true", "Authorization", "Basic "+string(key))
	got := token(t, status, body)
	if status, body = a.ask(t, address, "Metadata", "true", "Authorization", "Basic "+string(key)); status == http.StatusOK {
		t.Errorf("a challenge was taken twice: %s", body)
	}
	return got
}

func (a *agent) imds(t *testing.T, resource string) string {
	t.Helper()
	status, body := a.ask(t, fmt.Sprintf("%s/metadata/identity/oauth2/token?api-version=2018-02-01&resource=%s", a.line.IMDS, url.QueryEscape(resource)), "Metadata", "true")
	return token(t, status, body)
}

func (a *agent) appService(t *testing.T, resource string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(a.state, "dev.json"))
	if err != nil {
		t.Fatal(err)
	}
	var memory struct {
		Secret string `json:"secret"`
	}
	if err := json.Unmarshal(raw, &memory); err != nil {
		t.Fatal(err)
	}
	status, body := a.ask(t, a.line.AppService+"?api-version=2019-08-01&resource="+url.QueryEscape(resource), "X-IDENTITY-HEADER", memory.Secret)
	return token(t, status, body)
}
