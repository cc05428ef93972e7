//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"postern/agent/control"
)

// held is an authority that accepts connections and says nothing, until the
// returned function lets it go on.
func held(t *testing.T, ca *process) (release func()) {
	t.Helper()
	if err := ca.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := ca.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
}

// interrupt presses Ctrl-C and wants one sentence.
func interrupt(t *testing.T, verb *process, want string) {
	t.Helper()
	if err := verb.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := verb.exit(t); code != control.ExitInterrupted || !strings.HasSuffix(verb.text(), want) {
		t.Errorf("exit code %d: %s\nwant %s", code, verb.text(), want)
	}
}

// claimFile is a claim of the authority in p's folder.
func claimFile(t *testing.T, p place, args ...string) string {
	t.Helper()
	path := p.dir + "/" + strings.Join(args, "")
	claim := firstLine(mustDo(t, p, append([]string{"authority", "claim", "--dir", p.dir + "/ca"}, args...)...))
	if err := os.WriteFile(path, []byte(claim), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// asked says that the authority of p, which is held, has been sent something.
func asked(t *testing.T, p place) bool {
	t.Helper()
	raw, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	var status struct{ URL string }
	if err := json.Unmarshal([]byte(mustDo(t, p, "status", "authority", "--json")), &status); err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(portOf(strings.TrimPrefix(status.URL, "https://")))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		fields := strings.Fields(line) // number, local, remote, state, queues: sent and not read
		if len(fields) > 4 && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) && !strings.HasSuffix(fields[4], ":00000000") {
			return true
		}
	}
	return false
}

func TestInterruptedVerbsLoseNothing(t *testing.T) {
	p, ca := enrolled(t)
	again := claimFile(t, p, "gw-0042", "--reonboard")
	agent := p.run(t)

	release := held(t, ca)
	renew := begin(t, p.use, "renew")
	renew.says(t, "key: made and stored")
	interrupt(t, renew, "postern: interrupted before it was done\nfix: postern renew\n")
	release()
	if said := mustDo(t, p, "renew"); !strings.Contains(said, "is used again") {
		t.Errorf("the key of the interrupted renewal was not used: %s", said)
	}

	release = held(t, ca)
	before := identityOf(t, p)
	reconnect := begin(t, p.use, "reconnect", "--claim-file", again)
	reconnect.await(t, "a call to the authority", func() bool { return asked(t, p) })
	interrupt(t, reconnect, "postern: interrupted, but the agent finishes the reconnect that it has begun\nfix: postern status   # shows what became of it\n")
	if identityOf(t, p) != before {
		t.Error("the identity was changed before there was another")
	}
	release()
	agent.says(t, "reason=reconnect")
	mustDo(t, p, "token", "--resource", "https://vault.azure.net", "--refresh")

	release = held(t, ca)
	disconnect := begin(t, p.use, "disconnect", "--yes")
	disconnect.await(t, "a call to the authority", func() bool { return asked(t, p) })
	if code, said := p.do(t, "adopt", "--hardware-changed"); code != control.ExitFailed || !strings.Contains(said, "postern: adopt: disconnect is under way in process ") {
		t.Errorf("another verb meanwhile: exit code %d: %s", code, said)
	}
	interrupt(t, disconnect, "postern: interrupted, but the agent finishes the disconnect that it has begun\nfix: postern status   # shows what became of it\n")
	release()
	agent.says(t, "event=disconnected")
	agent.stop(t)
}

// TestOneOfTwoVerbsWins: without an agent the lock of the files decides, with
// one the agent.
func TestOneOfTwoVerbsWins(t *testing.T) {
	p, ca := enrolled(t)
	mustDo(t, p, "disconnect", "--yes")
	claim := claimFile(t, p, "gw-0043")
	release := held(t, ca)
	var both []*process
	for range 2 {
		both = append(both, begin(t, p.use, "connect", "--claim-file", claim))
	}
	oneWins(t, release, both, "postern: another postern is at work: ", " in use by another process")

	agent := p.run(t)
	release = held(t, ca)
	both = both[:0]
	for range 2 {
		both = append(both, begin(t, p.use, "renew"))
	}
	oneWins(t, release, both, "postern: renew: renew is under way in process ", "\nfix: postern status\n")
	if st := mustDo(t, p, "status"); !strings.Contains(st, "Connected   gw-0043") {
		t.Errorf("afterwards: %s", st)
	}
	mustDo(t, p, "token", "--resource", "https://vault.azure.net", "--refresh")
	agent.stop(t)
}

// oneWins waits for the one that is refused, releases the other, and wants it
// to succeed.
func oneWins(t *testing.T, release func(), both []*process, want ...string) {
	t.Helper()
	first, second := both[0], both[1]
	select {
	case <-first.ended:
	case <-second.ended:
		first, second = second, first
	}
	for _, words := range want {
		if code := first.exit(t); code != control.ExitFailed || !strings.Contains(first.text(), words) {
			t.Errorf("exit code %d without %q: %s", code, words, first.text())
		}
	}
	release()
	if code := second.exit(t); code != control.ExitDone {
		t.Errorf("the other ended with %d: %s", code, second.text())
	}
}

// TestQuestionIsInterrupted: whoever is asked may press Ctrl-C, also while a
// claim is pasted.
func TestQuestionIsInterrupted(t *testing.T) {
	p := newPlace(t)
	for _, args := range [][]string{{"disconnect"}, {"reset", "--all"}, {"connect", "--claim-file", "-"}, {"reconnect", "--claim-file", "-"}} {
		from, to, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		verb := begin(t, func(cmd *exec.Cmd) { p.use(cmd); cmd.Stdin = from }, args...)
		if len(args) > 2 {
			_, err = to.Write(make([]byte, 70<<10)) // more than a pipe holds: the verb has begun to read
		} else {
			verb.says(t, "[y/N]")
		}
		if err != nil {
			t.Fatal(err)
		}
		interrupt(t, verb, "postern: interrupted before it was done\nfix: postern "+strings.Join(args, " ")+"\n")
		if err := errors.Join(from.Close(), to.Close()); err != nil {
			t.Fatal(err)
		}
	}
}
