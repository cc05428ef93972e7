package main

import (
	"bytes"
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
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
