package authority_test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"postern/agent/authority"
	"postern/agent/lifecycle"
)

// rootsVariable says in a child process whose roots the system's are.
const rootsVariable = "POSTERN_TEST_ROOTS"

// The system's roots are read once for each process, so the tests of them run
// in a child whose system believes the root of the test.
func TestSystemRootsAreBelievedOnlyWhereConfigured(t *testing.T) {
	if os.Getenv(rootsVariable) != "" {
		t.Fatal("the child runs the wrong test")
	}
	path := filepath.Join(t.TempDir(), "roots.pem")
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestWithOwnSystemRoots$", "-test.v")
	cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+path, "SSL_CERT_DIR=/nonexistent", rootsVariable+"="+path)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestWithOwnSystemRoots(t *testing.T) {
	path := os.Getenv(rootsVariable)
	if path == "" {
		return // the child's side of the test above
	}
	inWorld(t, func(t *testing.T, w world) {
		if err := os.WriteFile(path, []byte(w.PKI.RootPEM()), 0o600); err != nil {
			t.Fatal(err)
		}
		w.serve("authority.test", func(http.ResponseWriter, *http.Request) {})
		config := w.Config()
		config.Roots, config.System = nil, true
		if _, err := w.get(authority.NewClient(config), base); err != nil {
			t.Errorf("the system's roots: %v", err)
		}
		config.System = false
		_, err := w.get(authority.NewClient(config), base)
		w.fails(err, lifecycle.ClassTransient, "no chain")
	})
}
