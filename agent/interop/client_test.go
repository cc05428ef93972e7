package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// answer is what a client saw (goclient, js/client.mjs).
type answer struct {
	OK     bool
	Error  string
	Digest string
	Claims struct{ Iss, Aud, Sub string }

	Expires  time.Time
	Requests int
	Next     bool
}

// account is who runs a client.
type account struct {
	uid    uint32
	groups []uint32
}

var (
	member   = account{uid: 2001, groups: []uint32{943}}
	outsider = account{uid: 2002}
)

// flavour is how a client is told where to ask.
type flavour string

const (
	arc    flavour = "arc"    // by variables
	marker flavour = "marker" // by the marker file alone
	imds   flavour = "imds"   // by nothing: 169.254.169.254
	app    flavour = "app"    // App Service, a workload's secret
)

func (w *world) variables(f flavour) []string {
	switch f {
	case arc:
		return []string{"IDENTITY_ENDPOINT=http://localhost:40342/metadata/identity/oauth2/token", "IMDS_ENDPOINT=http://localhost:40342"}
	case app:
		return w.app
	default:
		return nil
	}
}

func goClients() []string {
	return []string{"azidentity-1.15.0", "azidentity-1.10.1", "azidentity-1.5.2"}
}

// node comes with the clients: what a distribution calls node may be too old for
// them (18 in Debian 12, and @azure/identity wants 20).
func node() string { return "/run/js/" + nodeOf(runtime.GOARCH) }

// nodeOf is its path below js. Not every npm links it into .bin.
func nodeOf(arch string) string {
	return "node_modules/node-linux-" + strings.Replace(arch, "amd64", "x64", 1) + "/bin/node"
}

func jsClients() []string {
	return []string{"identity-4.13", "identity-4.2", "msal-node-7", "msal-node-5"}
}

// ask runs one client: its name, how it finds us, who runs it, and the
// arguments of its program.
func (w *world) ask(t *testing.T, client string, f flavour, who account, args ...string) answer {
	t.Helper()
	command := []string{"/run/tools/" + client}
	if !strings.HasPrefix(client, "azidentity") {
		command = []string{node(), "/run/js/client.mjs", client}
	}
	stdout := w.as(t, who, w.variables(f), append(command, args...)...)
	var a answer
	if err := json.Unmarshal([]byte(stdout), &a); err != nil {
		t.Fatalf("%s: %v\n%s", client, err, stdout)
	}
	return a
}

// as runs a program as an account, with no variables but those given: no proxy.
func (w *world) as(t *testing.T, who account, env []string, command ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = "/run/home"
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=/run/home"}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: who.uid, Gid: who.uid, Groups: who.groups}}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(command, " "), err, out, stderr.Bytes())
	}
	return string(out)
}

// gotToken fails the test unless the client has a usable token of id.
func gotToken(t *testing.T, a answer, id identity, resource string) {
	t.Helper()
	switch {
	case !a.OK:
		t.Errorf("no token: %s", a.Error)
	case a.Claims.Sub != id.ObjectID, a.Claims.Aud != resource, !strings.HasPrefix(a.Claims.Iss, "https://127.0.0.1:8443/"):
		t.Errorf("token of %+v, want sub %s and aud %s", a.Claims, id.ObjectID, resource)
	case !a.Expires.After(time.Now()):
		t.Errorf("the token was over at %s", a.Expires)
	}
}

// refused fails the test unless the client shows all of the words.
func refused(t *testing.T, a answer, words ...string) {
	t.Helper()
	if a.OK {
		t.Error("a token, want a refusal")
	}
	for _, word := range words {
		if !strings.Contains(a.Error, word) {
			t.Errorf("the error does not say %q: %s", word, a.Error)
		}
	}
}
