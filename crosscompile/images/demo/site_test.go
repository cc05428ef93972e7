//go:build linux

package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/crosscompile/qemu"
	"postern/platform/platformtest"
)

const resource = "https://vault.azure.net"

// site is a site authority on this host's loopback, the real binary.
type site struct {
	t           *testing.T
	binary, dir string
	port        int
	cmd         *exec.Cmd
	words       *bytes.Buffer
}

func newSite(t *testing.T) *site {
	t.Helper()
	project, err := qemu.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, binary: filepath.Join(t.TempDir(), "postern"), dir: filepath.Join(platformtest.Dir(t), "ca"), port: freePort(t)}
	if err := compile(t.Context(), project, s.binary, "", "./agent"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	s.run()
	s.must("authority", "resource", "add", resource)
	return s
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// run starts the authority and waits until it answers.
func (s *site) run() {
	s.t.Helper()
	s.words = &bytes.Buffer{}
	s.cmd = exec.Command(s.binary, "authority", "run", "--dir", s.dir, "--listen", "127.0.0.1:"+strconv.Itoa(s.port), "--url", "https://"+authorityAddress)
	s.cmd.Stdout, s.cmd.Stderr = s.words, s.words
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		if exec.Command(s.binary, "authority", "status", "--dir", s.dir).Run() == nil {
			return
		}
		if time.Now().After(deadline) {
			s.stop()
			s.t.Fatalf("the authority does not answer:\n%s", s.words)
		}
		<-time.After(100 * time.Millisecond)
	}
}

func (s *site) stop() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	_ = s.cmd.Wait()
	s.cmd = nil
}

func (s *site) must(args ...string) string {
	s.t.Helper()
	cmd := exec.Command(s.binary, append(args, "--dir", s.dir)...)
	var words bytes.Buffer
	cmd.Stderr = &words
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, words.String())
	}
	return string(out)
}

// claim puts a new claim into a file.
func (s *site) claim(machine string) string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "claim")
	if err := os.WriteFile(path, []byte(s.must("authority", "claim", machine)), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}
