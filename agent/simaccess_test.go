package main

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/agent/authority/site"
	"postern/agent/control"
)

// TestST17KeyFileThatOthersCouldReadIsNotUsedAgain: one careless chmod, noticed
// within 30 s; putting the mode right takes nothing back, a restart neither.
func TestST17KeyFileThatOthersCouldReadIsNotUsedAgain(t *testing.T) {
	for _, name := range keyFiles {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(t *testing.T) {
				s := newSimulation(t, 1)
				s.awake(10 * time.Minute)
				s.served(4, "at first")
				s.awake(time.Minute) // what follows from that is written
				path := filepath.Join(s.sim.Dirs().State, name)
				s.must(os.Chmod(path, 0o644))
				s.awake(31 * time.Second)
				s.insecure(path)
				if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
					t.Errorf("it was repaired in silence: %v", err)
				}
				s.must(os.Chmod(path, 0o600))
				s.awake(time.Minute)
				s.insecure(path)
				s.stop()
				s.boot(time.Minute, time.Time{}, true)
				s.insecure(path)
				claim, err := s.site.CreateClaim(t.Context(), site.ClaimRequest{Machine: simName, Reonboard: true})
				s.must(err)
				s.must(s.g.Connect(t.Context(), control.ConnectRequest{Claim: claim.Token.Reveal(), Again: true}, func(string) {}))
				s.awake(2 * time.Minute)
				if st := s.g.Status(); st.Exit() != control.ExitDone || st.Problem != "" {
					t.Errorf("after reconnect: exit code %d, problem %q", st.Exit(), st.Problem)
				}
			})
		})
	}
}

// TestST17KeyFileThatOthersCouldReadAtTheStartIsNotUsedEither: first it cannot
// be opened, and when it can be again, it is not as if nothing had been.
func TestST17KeyFileThatOthersCouldReadAtTheStartIsNotUsedEither(t *testing.T) {
	simulate(t, func(t *testing.T) {
		s := newSimulation(t, 1)
		s.awake(10 * time.Minute)
		path := filepath.Join(s.sim.Dirs().State, "kek")
		s.stop()
		s.must(os.Chmod(path, 0o644))
		s.boot(time.Minute, time.Time{}, true)
		st := s.g.Status()
		if st.Exit() != control.ExitDamaged || !strings.Contains(st.Problem, path) || st.Fix != "chmod 0600 "+path {
			t.Errorf("it says %q, fix %q, exit code %d", st.Problem, st.Fix, st.Exit())
		}
		if len(st.Warnings) != 2 { // that it is so now, and that the file cannot be read
			t.Errorf("warnings %q", st.Warnings)
		}
		claim := control.ConnectRequest{Claim: "not looked at", Again: true}
		var fault *control.Fault
		if err := s.g.Connect(t.Context(), claim, func(string) {}); !errors.As(err, &fault) || fault.Exit != control.ExitDamaged || fault.Fix != "chmod 0600 "+path {
			t.Errorf("reconnect: %v", err)
		}
		s.must(os.Chmod(path, 0o600))
		s.awake(2 * time.Minute)
		s.insecure(path)
		s.stop()
		s.boot(time.Minute, time.Time{}, true)
		s.insecure(path)
	})
}

// insecure wants the keys unused, whoever asks, and the reason named.
func (s *simulation) insecure(path string) {
	s.t.Helper()
	st := s.g.Status()
	if st.Exit() != control.ExitDamaged || st.Store.Identity != "insecure" || !strings.Contains(st.Problem, path) || !strings.Contains(st.Problem, "readable by others") ||
		!strings.Contains(st.Fix, "postern reconnect") || !strings.HasSuffix(statusLines(st, false)[0], "insecure   "+simName) {
		s.t.Errorf("status: exit code %d, store %q, problem %q, fix %q", st.Exit(), st.Store.Identity, st.Problem, st.Fix)
	}
	before := s.link.dials.Load()
	key := s.keys()[0]
	key.resource = "https://new.example/" + s.truth().Format(time.TimeOnly)
	if a, err := s.request(key, true); err != nil || a.status != http.StatusForbidden {
		s.t.Errorf("a token: %d, %v", a.status, err)
	} else if !strings.Contains(a.body, "Insecure: the keys are exposed") {
		s.t.Errorf("a token: %s", a.body)
	}
	if n := s.link.dials.Load() - before; n != 0 {
		s.t.Errorf("the key was used %d times", n)
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		s.t.Errorf("%s is gone", path)
	}
}
