//go:build linux

package linux

import (
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"postern/platform"
	"postern/platform/platformtest"
)

// noEnv is a process without an init system.
func noEnv(string) string { return "" }

// testHost is a host whose directories lie in a fresh safe directory.
func testHost(t testing.TB) *Host {
	t.Helper()
	base := platformtest.Dir(t)
	h, err := newHost(Options{
		StateDir:      filepath.Join(base, "state"),
		RuntimeDir:    filepath.Join(base, "run"),
		TokensDir:     filepath.Join(base, "run", "tokens"),
		TokensLiteral: filepath.Join(base, "literal"),
		Config:        filepath.Join(base, "postern.toml"),
		Group:         strconv.Itoa(platformtest.Reader()),
		Log:           slog.New(slog.NewTextHandler(t.Output(), nil)),
	}, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// olderKernels are hosts that must behave alike: what a feature's absence
// leaves is not second class (firmware-notes/faults.md, OS10).
func olderKernels(t *testing.T, run func(t *testing.T, open func(t *testing.T) platform.Host)) {
	for name, without := range map[string]func(*missing){
		"all":                   func(*missing) {},
		"no openat2":            func(m *missing) { m.openat2.Store(true) },
		"no O_TMPFILE":          func(m *missing) { m.tmpfile.Store(true) },
		"no link by descriptor": func(m *missing) { m.emptyPath.Store(true) }, // before 6.10
		"no proc fd":            func(m *missing) { m.procFD.Store(true) },
		"nothing": func(m *missing) {
			m.openat2.Store(true)
			m.tmpfile.Store(true)
			m.emptyPath.Store(true)
			m.renameat2.Store(true)
			m.sockDiag.Store(true)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, func(t *testing.T) platform.Host {
				h := testHost(t)
				without(&h.without)
				return h
			})
		})
	}
}

func TestOS10HostKeepsTheContractOnEveryKernel(t *testing.T) {
	olderKernels(t, platformtest.Run)
}

func TestHostWithstandsHostileFilesOnEveryKernel(t *testing.T) {
	olderKernels(t, platformtest.RunHostile)
}

func TestTokenDirectoryIsFoundThroughTheLiteralPath(t *testing.T) {
	base := platformtest.Dir(t)
	literal := filepath.Join(base, "literal")
	dirs := func() platform.Dirs {
		t.Helper()
		h, err := newHost(Options{RuntimeDir: filepath.Join(base, "run"), TokensLiteral: literal}, noEnv)
		if err != nil {
			t.Fatal(err)
		}
		if h.Dirs().TokensLiteral != literal {
			t.Errorf("literal path is %s, want %s", h.Dirs().TokensLiteral, literal)
		}
		return h.Dirs()
	}
	if got, want := dirs().Tokens, filepath.Join(base, "run", "tokens"); got != want {
		t.Errorf("before discovery tokens are in %s, want %s", got, want)
	}
	if err := os.Symlink("target/tokens", literal); err != nil {
		t.Fatal(err)
	}
	if got, want := dirs().Tokens, filepath.Join(base, "target/tokens"); got != want {
		t.Errorf("through a link tokens are in %s, want %s", got, want)
	}
	if err := os.Remove(literal); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(literal, 0o750); err != nil {
		t.Fatal(err)
	}
	if got := dirs().Tokens; got != literal {
		t.Errorf("in a plain directory tokens are in %s, want %s", got, literal)
	}
}

func TestDefaultsAreThoseOfTheConventions(t *testing.T) {
	h, err := newHost(Options{StateDir: "/data/postern/"}, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	want := platform.Dirs{
		State: "/data/postern", Runtime: "/run/postern", Tokens: h.findTokens(),
		TokensLiteral: "/var/opt/azcmagent/tokens", Config: "/etc/postern/postern.toml",
	}
	if h.Dirs() != want {
		t.Errorf("got %+v, want %+v", h.Dirs(), want)
	}
}

func TestRelativePathsAreRefused(t *testing.T) {
	for _, o := range []Options{{StateDir: "state"}, {RuntimeDir: "./run"}, {TokensDir: "t"}, {StateDir: "/a\x00b"}} {
		if _, err := newHost(o, noEnv); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}
