//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const (
	configFile = "/etc/postern/postern.toml"
	stateDir   = "/var/lib/postern"
	noGrant    = "\n[[grant]]\nwho = \"user:root\"\nidentity = \"system\"\nresources = [\"https://example.invalid\"]\n"
)

// token asks as a member of the group.
func (s *story) token() (claims, error) {
	a, err := ask(s.member)
	switch {
	case err != nil:
		return claims{}, err
	case a.First != 401 || a.Second != 200:
		return claims{}, fmt.Errorf("a member got %d, then %d: %s %s", a.First, a.Second, a.Unread, a.Body)
	case !strings.HasPrefix(a.Path, "/var/opt/azcmagent/tokens/"):
		return claims{}, fmt.Errorf("the challenge lies in %s", a.Path)
	}
	return a.Token, nil
}

func (s *story) firstToken() (string, error) {
	c, err := s.token()
	if err != nil {
		return "", err
	}
	left := time.Until(time.Unix(c.Expires, 0))
	if c.Audience != resource || c.Subject == "" || c.Issuer == "" || left < 5*time.Minute {
		return "", fmt.Errorf("token is for %q of %q by %q, %s left", c.Audience, c.Subject, c.Issuer, left)
	}
	s.memory.Token = c
	return fmt.Sprintf("by %s, %s left", c.Issuer, left.Round(time.Second)), s.remember()
}

// sameToken: served from what an earlier boot left on the disk.
func (s *story) sameToken() (string, error) {
	var c claims
	err := wait(patient, func() (err error) {
		c, err = s.token()
		return err
	})
	if err == nil && c != s.memory.Token {
		err = fmt.Errorf("another token: %v, want %v", c, s.memory.Token)
	}
	return c.Digest, err
}

// refused: a program outside the group gets nothing, neither with a key of its
// own making nor with that of a member.
func (s *story) refused() (string, error) {
	a, err := ask(s.stranger)
	if err != nil {
		return "", err
	}
	if a.First != 401 || !strings.HasSuffix(a.Unread, syscall.EACCES.Error()) || a.Second != 401 {
		return "", fmt.Errorf("a stranger got %d, %q, then %d: %s", a.First, a.Unread, a.Second, a.Body)
	}
	got := a.Unread
	if a, err = ask(s.member, "stop"); err != nil {
		return got, err
	}
	if a.Key == "" || a.Unread != "" {
		return got, fmt.Errorf("a member cannot read its key: %d %s", a.First, a.Unread)
	}
	if a, err = ask(s.stranger, "key", a.Key); err != nil {
		return got, err
	}
	if a.Second != 401 {
		return got, fmt.Errorf("a stranger with the key of a member got %d: %s", a.Second, a.Body)
	}
	return got, nil
}

// settled is how long nothing may have been written: the agent gathers writes,
// and commits a token 2 s after it came when there is no more to do.
const settled = 8 * time.Second

// saved awaits that the token is on the disk.
func (s *story) saved() (string, error) {
	const cache = stateDir + "/cache.db"
	began := time.Now()
	var last time.Time
	since := began
	err := wait(patient, func() error {
		info, err := os.Stat(cache)
		if err != nil {
			return err
		}
		if !info.ModTime().Equal(last) {
			last, since = info.ModTime(), time.Now()
		}
		if time.Since(since) < settled {
			return errors.New("the cache is still being written")
		}
		return nil
	})
	return "last write " + time.Since(since).Round(100*time.Millisecond).String() + " ago", err
}

// killed: the init brings a killed agent back, and it knows what it knew.
func (s *story) killed() (string, error) {
	old := agentPID()
	peak := field(old, "VmHWM")
	began := time.Now()
	if err := s.lsb(0); err != nil {
		return "", err
	}
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		return "", err
	}
	if s.plan.Once {
		if err := s.startAgain(); err != nil {
			return "", err
		}
	}
	took, err := s.back(old, began)
	if err != nil {
		return took, err
	}
	got, err := s.process()
	return took + "; before it had " + peak + "; now " + got, err
}

// back awaits another agent than old that answers.
func (s *story) back(old int, began time.Time) (string, error) {
	err := wait(seconds(s.plan.Again), func() error {
		if pid := agentPID(); pid == 0 || pid == old {
			return fmt.Errorf("no new agent, only %d", pid)
		}
		return answers()
	})
	if err != nil {
		return "", err
	}
	st, err := agentStatus()
	if err == nil && st.Tokens.Cached != s.usable() {
		err = fmt.Errorf("%d tokens can be served, want %d", st.Tokens.Cached, s.usable())
	}
	return "back after " + time.Since(began).Round(100*time.Millisecond).String(), err
}

// reloadBad: a file that cannot be read leaves everything as it was.
func (s *story) reloadBad() (string, error) {
	good, err := os.ReadFile(configFile)
	if err != nil {
		return "", err
	}
	pid := agentPID()
	if err := s.reread("no_such_key = 1\n"+string(good)+noGrant, pid, "configuration stays as it was"); err != nil {
		return "", err
	}
	if _, err := s.token(); err != nil {
		return "", fmt.Errorf("after a bad file: %w", err)
	}
	if now := agentPID(); now != pid {
		return "", fmt.Errorf("agent %d became %d", pid, now)
	}
	return "", os.WriteFile(configFile, good, 0o644)
}

// reload: a good file is taken in by the same process, through the init.
func (s *story) reload() (string, error) {
	good, err := os.ReadFile(configFile)
	if err != nil {
		return "", err
	}
	pid := agentPID()
	if err := s.reread(string(good)+noGrant, pid, "grants read again"); err != nil {
		return "", err
	}
	if err := wait(patient, func() error { return s.denied() }); err != nil {
		return "", err
	}
	if err := s.reread(string(good), pid, "grants read again"); err != nil {
		return "", err
	}
	if _, err := s.sameToken(); err != nil {
		return "", err
	}
	if now := agentPID(); now != pid {
		return "", fmt.Errorf("agent %d became %d", pid, now)
	}
	return "", nil
}

func (s *story) denied() error {
	a, err := ask(s.member)
	if err == nil && (a.Second != 403 || !strings.Contains(a.Body, "access_denied")) {
		err = fmt.Errorf("a member without a grant got %d: %s", a.Second, a.Body)
	}
	return err
}

// reread writes the configuration, has the init tell the agent, and awaits
// that the agent has looked: by the words in its log, or where the log goes to
// the console by the file's access time.
func (s *story) reread(content string, pid int, words string) error {
	if err := os.WriteFile(configFile, []byte(content), 0o644); err != nil {
		return err
	}
	before, written := s.said(words), accessed(configFile)
	if err := commands(s.plan.Reload, pid); err != nil {
		return err
	}
	return wait(patient, func() error {
		if len(s.plan.Log) == 0 && accessed(configFile) != written || s.said(words) > before {
			return nil
		}
		return fmt.Errorf("the agent did not say %q after a reload", words)
	})
}

// said counts words in the agent's log.
func (s *story) said(words string) int {
	if len(s.plan.Log) == 0 {
		return 0
	}
	out, _ := run(s.plan.Log, 0)
	return strings.Count(out, words)
}

func accessed(path string) syscall.Timespec {
	var st syscall.Stat_t
	_ = syscall.Stat(path, &st)
	return st.Atim
}

// heldBack: while the clock cannot be believed a cached token is not proven to
// live, and the answer says that it is the clock.
func (s *story) heldBack() (string, error) {
	a, err := ask(s.member)
	if err != nil {
		return "", err
	}
	got := fmt.Sprintf("%d, Retry-After %s: %s", a.Second, a.Retry, strings.TrimSpace(a.Body))
	if a.First != 401 || a.Second != 503 || a.Retry == "" || !strings.Contains(a.Body, "ClockUntrusted") {
		return got, errors.New("want 503 with Retry-After that names ClockUntrusted")
	}
	return got, nil
}

// stop ends the agent through its init.
func (s *story) stop() (string, error) {
	pid := agentPID()
	events, err := watchExits()
	if err != nil {
		return "", err
	}
	defer events.close()
	began := time.Now()
	failed := make(chan error, 1)
	go func() { failed <- commands(s.plan.Stop, pid) }()
	status, err := events.of(pid, patient)
	took := time.Since(began)
	if err := errors.Join(err, <-failed); err != nil {
		return "", err
	}
	got := fmt.Sprintf("status %d after %s", status, took.Round(10*time.Millisecond))
	if status != 0 {
		return got, errors.New("want exit status 0")
	}
	if took > 15*time.Second { // promised are 5 s, on a machine that is not emulated
		return got, errors.New("it took too long")
	}
	if _, err := arc().dial(); !errors.Is(err, syscall.ECONNREFUSED) {
		return got, fmt.Errorf("the port: %w", err)
	}
	if _, err := os.Lstat("/run/postern/control.sock"); !s.plan.Handed && !errors.Is(err, os.ErrNotExist) {
		return got, fmt.Errorf("the control socket is still there (%w)", err)
	}
	if pid := agentPID(); pid != 0 {
		return got, fmt.Errorf("agent %d runs", pid)
	}
	return got, s.lsb(3)
}

// lsb compares the exit code of the init script's status, where there is one.
func (s *story) lsb(want int) error {
	if len(s.plan.Status) == 0 {
		return nil
	}
	_, err := run(s.plan.Status, 0)
	got := 0
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("status is %d, want %d: %w", got, want, err)
	}
	return nil
}

// startAgain starts a killed agent where the init does not.
func (s *story) startAgain() error {
	err := wait(patient, func() error {
		if pid := agentPID(); pid != 0 {
			return fmt.Errorf("agent %d runs", pid)
		}
		return s.lsb(1)
	})
	if err != nil {
		return err
	}
	return commands(s.plan.Start, 0)
}

// store: what the agent left is sound.
func (s *story) store() (string, error) {
	for _, name := range []string{"/identity.db", "/cache.db"} {
		if _, err := postern("store", "verify", stateDir+name); err != nil {
			return "", err
		}
	}
	return "", nil
}

func (s *story) secondStart() (string, error) {
	began := time.Now()
	if err := commands(s.plan.Start, 0); err != nil {
		return "", err
	}
	took, err := s.back(0, began)
	if err != nil {
		return took, err
	}
	got, err := s.process()
	return took + "; " + got, err
}

// peak is the most memory that the agent of this boot had.
func (s *story) peak() (string, error) {
	peak := field(agentPID(), "VmHWM")
	if peak == "" {
		return "", errors.New("no agent runs")
	}
	return peak + " of " + fmt.Sprint(memory("MemTotal")) + " kB", nil
}
