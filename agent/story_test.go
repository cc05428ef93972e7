//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"postern/platform/platformtest"
)

func TestMain(m *testing.M) {
	testscript.Main(tidy{m}, map[string]func(){"postern": func() { os.Exit(storyMain()) }})
}

// tidy is a run of tests that leaves nothing behind.
type tidy struct{ *testing.M }

// Run implements testscript.TestingM.
func (t tidy) Run() int {
	code := t.M.Run()
	if dir := simLeft.Load(); dir != nil && os.RemoveAll(*dir) != nil {
		return max(code, 1)
	}
	return code
}

// storyLog names the file in which a story's commands leave what they said.
const storyLog = "POSTERN_STORY_LOG"

// storyMain is main, with a copy of all that is said for the canary test.
func storyMain() int {
	args := os.Args[1:]
	path := os.Getenv(storyLog)
	if path == "" {
		return run(context.Background(), args, os.Stdin, os.Stdout, os.Stderr)
	}
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		return run(context.Background(), args, os.Stdin, os.Stdout, os.Stderr) // another account's process
	}
	record := func(stream string) io.Writer { return &recorder{log: json.NewEncoder(log), stream: stream, args: args} }
	return run(context.Background(), args, os.Stdin,
		io.MultiWriter(os.Stdout, record("stdout")), io.MultiWriter(os.Stderr, record("stderr")))
}

// said is one write of one command.
type said struct {
	Args   []string
	Stream string
	Text   string
}

type recorder struct {
	log    *json.Encoder
	stream string
	args   []string
}

func (r *recorder) Write(p []byte) (int, error) {
	return len(p), r.log.Encode(said{Args: r.args, Stream: r.stream, Text: string(p)})
}

// TestStories plays testdata/*.txtar with the real program in processes of its
// own, and afterwards looks for secrets in all that was said and written.
func TestStories(t *testing.T) {
	root := platformtest.Dir(t)
	logs := filepath.Join(root, "said")
	if err := os.Mkdir(logs, 0o777); err != nil {
		t.Fatal(err)
	}
	work := filepath.Join(root, "work")
	if err := os.Mkdir(work, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Run("story", func(t *testing.T) {
		testscript.Run(t, testscript.Params{
			Dir: "testdata", WorkdirRoot: work, RequireExplicitExec: true, RequireUniqueNames: true,
			Cmds: map[string]func(*testscript.TestScript, bool, []string){
				"port": storyPort, "agent": storyAgent, "await": storyAwait, "code": storyCode, "json": storyJSON,
				"keep": storyKeep, "capture": storyCapture, "secret": storySecret,
				"truncate": storyTruncate, "workload": storyWorkload,
				"ready": storyReady, "trial": storyTrial, "everyone": storyEveryone,
			},
			Condition: func(name string) (bool, error) {
				if name == "root" {
					return os.Geteuid() == 0, nil
				}
				return false, fmt.Errorf("there is no condition %q", name)
			},
			Setup: func(e *testscript.Env) error {
				e.Setenv(storyLog, filepath.Join(logs, filepath.Base(e.WorkDir)))
				return nil
			},
		})
	})
	lookForCanaries(t, logs, work)
	lookForSchemas(t, logs)
}

// lookForSchemas wants the schema as the first key of every document that any
// command of the stories printed. One key of a status is none, and the first
// line of a trial has a form of its own (storyReady).
func lookForSchemas(t *testing.T, logs string) {
	t.Helper()
	schemas := map[string]bool{}
	first := regexp.MustCompile(`^\{"schema":"(postern\.[a-z-]+/[0-9]+)"`)
	eachSaid(t, logs, func(story string, s said) {
		if s.Stream != "stdout" || !slices.Contains(s.Args, "--json") || !strings.HasPrefix(s.Text, "{") || strings.HasPrefix(s.Text, `{"ready":true,`) {
			return
		}
		if found := first.FindStringSubmatch(s.Text); found != nil {
			schemas[found[1]] = true
		} else if s.Args[0] != "status" {
			t.Errorf("%s: %q printed a document without its schema", story, s.Args)
		}
	})
	if strings.Contains(flag.Lookup("test.run").Value.String(), "/") {
		return // some of the stories, as in the tier boot: they need not print every document
	}
	for _, want := range []string{"status", "check", "error", "version", "token", "identity", "config", "env", "claim"} {
		if !schemas["postern."+want+"/1"] {
			t.Errorf("no story printed a document %s", want)
		}
	}
}

// nextPort counts through the ports below those that the system hands out by
// itself.
var nextPort atomic.Uint32 //nolint:gochecknoglobals // shared by parallel stories

// freePort is an address on loopback that nobody uses, and that no other run of
// these tests takes until release: a datagram socket of the same number says
// that it is taken, and disturbs nobody who listens on TCP.
func freePort() (address string, release func(), err error) {
	nextPort.CompareAndSwap(0, 20000+uint32(os.Getpid())*61%10000)
	for range 2000 {
		address := fmt.Sprintf("127.0.0.1:%d", nextPort.Add(1))
		held, err := net.ListenPacket("udp4", address)
		if err != nil {
			continue
		}
		if portIsFree("tcp4", address) && portIsFree("tcp6", onIPv6(address)) {
			return address, func() { _ = held.Close() }, nil
		}
		_ = held.Close()
	}
	return "", nil, errors.New("no port is free")
}

// portIsFree also holds where the family is missing.
func portIsFree(network, address string) bool {
	l, err := net.Listen(network, address)
	if err == nil {
		err = l.Close()
	}
	return !errors.Is(err, syscall.EADDRINUSE)
}

// onIPv6 is the same port on the other family.
func onIPv6(address string) string { return "[::1]:" + portOf(address) }

// storyPort sets variables to free addresses: port NAME…
func storyPort(ts *testscript.TestScript, _ bool, names []string) {
	for _, name := range names {
		address, release, err := freePort()
		ts.Check(err)
		ts.Defer(release)
		ts.Setenv(name, address)
		ts.Setenv("PORT", portOf(address)) // of the last one
	}
}

// storyTrial makes the state directory of a trial that answers on ports of its
// own from the first start: trial DIR.
func storyTrial(ts *testscript.TestScript, _ bool, args []string) {
	storyPort(ts, false, []string{"APP"})
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(filepath.Dir(dir), 0o755))
	ts.Check(os.Mkdir(dir, 0o700))
	text := fmt.Sprintf(`{"authority":"127.0.0.1:0","imds":"127.0.0.1:0","app_service":%q}`, ts.Getenv("APP"))
	ts.Check(os.WriteFile(filepath.Join(dir, "dev.json"), []byte(text), 0o600))
}

// storyReady compares the first line of dev --json with its contract, byte by
// byte but for what is random: ready ARC IMDS STATE.
func storyReady(ts *testscript.TestScript, _ bool, args []string) {
	line, _, _ := strings.Cut(ts.ReadFile("stdout"), "\n")
	identity := func(kind string) string {
		return `\{"kind":"` + kind + `","name":"[^"]+","client_id":"[0-9a-f-]{36}","object_id":"[0-9a-f-]{36}","resource_id":"/subscriptions/[^"]+"\}`
	}
	want := `^\{"ready":true,"endpoint":"` + args[0] + `","imds":"http://` + args[1] + `","app_service":"http://127\.0\.0\.1:[0-9]+/msi/token","state_dir":"` +
		args[2] + `","identities":\[` + identity("SystemAssigned") + "," + identity("UserAssigned") + `\]\}$`
	if !regexp.MustCompile(want).MatchString(line) {
		ts.Fatalf("the ready line is %s\nwant %s", line, want)
	}
}

// storyAgent writes the configuration of an agent that disturbs nobody and
// points $POSTERN_CONFIG at it: agent NAME [line…]. Its addresses are $ARC and
// $IMDS, its directories lie in $WORK/NAME.
func storyAgent(ts *testscript.TestScript, _ bool, args []string) {
	storyPort(ts, false, []string{"IMDS", "ARC"})
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	text := fmt.Sprintf("log_level = \"debug\"\nstate_dir = %q\nruntime_dir = %q\ntokens_dir = %q\ngroup = \"%d\"\n%s\n[arc]\nlisten = [%q, %q]\n[imds]\nenabled = true\nlisten = [%q]\nallow = \"anyone\"\n",
		dir+"/state", dir+"/run", dir+"/tokens", os.Getgid(), strings.Join(args[1:], "\n"), ts.Getenv("ARC"), onIPv6(ts.Getenv("ARC")), ts.Getenv("IMDS"))
	path := dir + "/postern.toml"
	ts.Check(os.WriteFile(path, []byte(text), 0o644))
	ts.Setenv("POSTERN_CONFIG", path)
	ts.Setenv("STATE", dir+"/state")
}

// storyAwait repeats a command until it succeeds: await COMMAND…, or until it
// fails: ! await COMMAND…
func storyAwait(ts *testscript.TestScript, neg bool, args []string) {
	deadline := time.After(60 * time.Second)
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for {
		err := ts.Exec(args[0], args[1:]...)
		if (err == nil) != neg {
			return
		}
		select {
		case <-deadline:
			ts.Fatalf("await %q: %v", args, err)
		case <-poll.C:
		}
	}
}

// storyCode runs a command and wants one exit code: code N COMMAND…
func storyCode(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%q: %v", args[1:], err)
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("%q ended with %d, want %s", args[1:], got, args[0])
	}
}

// storyJSON wants keys in the first line of the last command's stdout: json KEY…
func storyJSON(ts *testscript.TestScript, _ bool, keys []string) {
	line, _, _ := strings.Cut(ts.ReadFile("stdout"), "\n")
	for _, key := range keys {
		var doc map[string]json.RawMessage
		ts.Check(json.Unmarshal([]byte(line), &doc))
		if _, found := doc[key]; !found {
			ts.Fatalf("there is no key %q in %s", key, line)
		}
	}
}

// storyKeep saves the last stdout, without the newline, as a secret that only
// this file may hold: keep FILE.
func storyKeep(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+secretSuffix), []byte(strings.TrimSpace(ts.ReadFile("stdout"))), 0o600))
}

// storyCapture sets a variable from the last stdout: capture NAME PATTERN, with
// one group.
func storyCapture(ts *testscript.TestScript, _ bool, args []string) {
	found := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if len(found) != 2 {
		ts.Fatalf("%s is not in stdout", args[1])
	}
	ts.Setenv(args[0], found[1])
}

// storySecret keeps a value as a secret: secret VALUE.
func storySecret(ts *testscript.TestScript, _ bool, args []string) {
	name := fmt.Sprintf("secret-%d%s", nextPort.Add(1), secretSuffix)
	ts.Check(os.WriteFile(ts.MkAbs(name), []byte(args[0]), 0o600))
}

// storyTruncate takes three quarters of a file away, as a bad sector would; a
// database that has just grown keeps a half in reserve.
func storyTruncate(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(args[0])
	ts.Check(err)
	ts.Check(os.Truncate(args[0], info.Size()/4))
}

// storyWorkload adds a workload to a configuration: workload FILE NAME ADDRESS.
func storyWorkload(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_APPEND|os.O_WRONLY, 0)
	ts.Check(err)
	_, err = fmt.Fprintf(f, "[[workload]]\nname = %q\nlisten = %q\n", args[1], args[2])
	ts.Check(errors.Join(err, f.Close()))
}

// storyEveryone puts a copy of the program where other accounts can run it.
func storyEveryone(ts *testscript.TestScript, _ bool, args []string) {
	self, err := os.Executable()
	ts.Check(err)
	raw, err := os.ReadFile(self)
	ts.Check(err)
	path := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
	ts.Check(os.WriteFile(path, raw, 0o755))
}

var jwt = regexp.MustCompile(`^[\w-]+\.[\w-]+\.[\w-]+$`)
