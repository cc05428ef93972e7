package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"postern/agent/control"
)

func TestFixIsCompleteWithTheFlagsOfTheInvocation(t *testing.T) {
	t.Setenv("POSTERN_CONFIG", "/etc/other.toml")
	ca := ""
	device := &cli{stateDir: "/srv/it's mine", authorityDir: &ca, args: []string{"connect", "--claim-file", "my claim"}}
	dir := "/srv/ca"
	authority := &cli{authorityDir: &dir, args: []string{"authority", "status", "--dir", "/srv/ca"}}
	for _, row := range []struct {
		c         *cli
		fix, want string
	}{
		{device, "postern status", `postern status --state-dir '/srv/it'\''s mine'`},
		{device, "postern status   # to begin anew: sudo postern disconnect", `postern status --state-dir '/srv/it'\''s mine'   # to begin anew: sudo postern disconnect --config /etc/other.toml --state-dir '/srv/it'\''s mine'`},
		{device, "sudo postern run   # or: sudo systemctl start postern", `sudo postern run --config /etc/other.toml --state-dir '/srv/it'\''s mine'   # or: sudo systemctl start postern`},
		{device, "sleep 5; sudo postern renew", `sleep 5; sudo postern renew --config /etc/other.toml --state-dir '/srv/it'\''s mine'`},
		{device, "sudo postern authority claim MACHINE   # on the authority", "sudo postern authority claim MACHINE   # on the authority"},
		{device, "postern config print --defaults | sudo tee /etc/x", "postern config print --defaults | sudo tee /etc/x"},
		{device, "postern connect --help", "postern connect --help"},
		{device, "sudo systemctl stop postern   # if that is postern", "sudo systemctl stop postern   # if that is postern"},
		{device, "curl -v https://ca.test/health", "curl -v https://ca.test/health"},
		{device, "", ""},
		{device, "postern dev --state-dir OTHER", "postern dev --state-dir OTHER"},
		{device, control.AgainWithSudo, "sudo postern connect --claim-file 'my claim' --config /etc/other.toml"},
		{device, control.AgainWithYes, "postern connect --claim-file 'my claim' --yes"},
		{authority, "sudo postern authority machine list; sudo postern authority identity list", "sudo postern authority machine list --dir /srv/ca; sudo postern authority identity list --dir /srv/ca"},
		{authority, "sudo postern authority claim MACHINE --reonboard   # for a new key", "sudo postern authority claim MACHINE --reonboard --dir /srv/ca   # for a new key"},
		{authority, control.AgainWithSudo, "sudo postern authority status --dir /srv/ca --config /etc/other.toml"},
	} {
		if got := row.c.complete(row.fix); got != row.want {
			t.Errorf("%q\nbecame %q\nwant   %q", row.fix, got, row.want)
		}
	}
}

// TestEveryErrorEndsWithACommand, also those that nobody has found words for.
func TestEveryErrorEndsWithACommand(t *testing.T) {
	c := &cli{args: []string{"dev"}}
	dir := t.TempDir()
	at := func(err error) error {
		return fmt.Errorf("store: %w", &fs.PathError{Op: "write", Path: dir + "/not/there", Err: err})
	}
	for fix, err := range map[string]error{
		"df -h " + dir:      at(syscall.ENOSPC),
		"findmnt -T " + dir: at(syscall.EROFS),
		"ls -ld " + dir:     at(syscall.ENOTDIR),
		"postern dev --verbose   # shows the causes": errors.New("something"),
	} {
		if got := c.lookInto(err); got != fix {
			t.Errorf("%v: %q, want %q", err, got, fix)
		}
	}
	c.verbose = true
	if got := c.lookInto(errors.New("something")); got != "postern check" {
		t.Errorf("with all causes shown: %q", got)
	}
}

// TestCommandsNameTheProgramAsAShellFindsIt: what was unpacked is not in the path.
func TestCommandsNameTheProgramAsAShellFindsIt(t *testing.T) {
	for called, want := range map[string]string{
		"postern": "postern status", "./postern": "./postern status", "/opt/my tools/postern": "'/opt/my tools/postern' status",
		"/tmp/go-build12/b001/exe/agent": "go run ./agent status",
	} {
		c := &cli{called: called, args: []string{"status"}}
		if got := c.complete("postern status"); got != want {
			t.Errorf("called %s: %q, want %q", called, got, want)
		}
		if got := c.complete("postern --help"); got != strings.TrimSuffix(want, "status")+"--help" {
			t.Errorf("called %s: %q", called, got)
		}
		if got := c.complete(c.invocation()); got != want {
			t.Errorf("called %s: %q, want %q", called, got, want)
		}
		if got := c.complete(control.AgainWithSudo); got != "sudo "+want {
			t.Errorf("called %s: %q, want %q", called, got, "sudo "+want)
		}
	}
	found, err := exec.LookPath("postern")
	if err != nil {
		t.Fatal(err)
	}
	if got := (&cli{called: found}).complete("postern status"); got != "postern status" {
		t.Errorf("called %s: %q", found, got)
	}
}

func TestFixesInAStatusAreComplete(t *testing.T) {
	c := &cli{stateDir: "/srv/state"}
	st := control.Status{Fix: "postern status", Identities: []control.Identity{{Fix: "sudo postern renew"}}}
	c.completeAll(&st)
	if st.Fix != "postern status --state-dir /srv/state" || !strings.HasSuffix(st.Identities[0].Fix, " --state-dir /srv/state") {
		t.Errorf("%q and %q", st.Fix, st.Identities[0].Fix)
	}
}

// TestEachFixIsACommand reads the fix of every fault in the sources: what
// stands there can be pasted, whatever follows as a comment.
func TestEachFixIsACommand(t *testing.T) {
	command := regexp.MustCompile(`^(sudo )?(|postern|ls|chmod|rm|curl|openssl|getent|ip|systemctl|groupadd|usermod|sc\.exe|busybox|df|chown|ss|mount|umount|sleep|apt-get|install) `)
	seen := 0
	for _, pattern := range []string{"*.go", "control/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			for fix, line := range fixesOf(t, path) {
				seen++
				if !command.MatchString(fix) {
					t.Errorf("%s:%d: the fix %q is not a command", path, line, fix)
				}
			}
		}
	}
	if seen < 40 {
		t.Errorf("only %d fixes were found", seen)
	}
}

// fixesOf are the literals with which the third argument of NewFault begins.
func fixesOf(t *testing.T, path string) map[string]int {
	t.Helper()
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || !strings.HasSuffix(name(call.Fun), "NewFault") || len(call.Args) < 4 {
			return true
		}
		fix := call.Args[2]
		for sum, ok := fix.(*ast.BinaryExpr); ok; sum, ok = fix.(*ast.BinaryExpr) {
			fix = sum.X
		}
		if literal, ok := fix.(*ast.BasicLit); ok {
			if text, err := strconv.Unquote(literal.Value); err == nil {
				found[text+" "] = set.Position(literal.Pos()).Line
			}
		}
		return true
	})
	return found
}

func name(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

// TestDefaultsArePrintedWhateverTheFileSays: the fix of a wrong file.
func TestDefaultsArePrintedWhateverTheFileSays(t *testing.T) {
	t.Setenv("POSTERN_CONFIG", filepath.Join(t.TempDir(), "missing.toml"))
	var stdout, stderr bytes.Buffer
	if code := run(context.Background(), []string{"config", "print", "--defaults"}, strings.NewReader(""), &stdout, &stderr); code != 0 || !strings.Contains(stdout.String(), "state_dir") {
		t.Errorf("exit code %d: %s%s", code, stdout.String(), stderr.String())
	}
}
