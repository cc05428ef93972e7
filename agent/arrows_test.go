package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// arrows lists every room and what it may import of this module. A room that
// is not listed, or an import that is not, is a failure: a feature that needs a
// new arrow is a decision, not an accident.
var arrows = map[string][]string{
	"agent/lifecycle":               {},
	"agent/config":                  {},
	"agent/verb":                    {},
	"platform":                      {},
	"store":                         {},
	"agent/authority/jws":           {},
	"platform/linux":                {"platform"},
	"platform/windows":              {"platform"},
	"platform/linux/init":           {},
	"platform/linux/install":        {"platform/linux/init"},
	"platform/platformtest":         {"platform", "platform/linux", "platform/windows"},
	"agent/authority":               {"agent/lifecycle"},
	"agent/credential":              {"agent/lifecycle", "store"},
	"agent/challenge":               {"platform", "agent/lifecycle"},
	"agent/audit":                   {"store", "agent/lifecycle", "platform"},
	"agent/token":                   {"agent/lifecycle", "agent/credential", "store", "platform"},
	"agent/endpoint":                {"agent/challenge", "agent/credential", "agent/token", "agent/lifecycle", "platform", "store"},
	"agent/control":                 {"agent/lifecycle", "agent/credential", "agent/token", "platform"},
	"agent/authority/oauth":         {"agent/authority", "agent/authority/jws", "agent/credential", "agent/token", "agent/lifecycle", "store"},
	"agent/authority/stepca":        {"agent/authority", "agent/authority/jws", "agent/credential", "agent/lifecycle", "store"},
	"agent/authority/site":          {"agent/authority/jws", "agent/lifecycle", "store"},
	"agent/authority/authoritytest": {"*"},
	"agent":                         {"*"},
	"crosscompile":                  {},
	"crosscompile/budget":           {},
	"crosscompile/images/demo":      {"crosscompile", "crosscompile/images/probe/ask", "crosscompile/images/slots", "crosscompile/qemu"},
	"crosscompile/images/slot":      {"crosscompile/images/slots"},
	"crosscompile/images/slots":     {},
	"crosscompile/images/probe":     {"crosscompile/images/probe/ask"},
	"crosscompile/images/probe/ask": {},
	"crosscompile/tests":            {},
	"crosscompile/release":          {"crosscompile"},
	"crosscompile/emulated":         {"crosscompile"},
	"crosscompile/bench":            {"crosscompile"},
	"crosscompile/bench/floor":      {},
	"crosscompile/qemu":             {"crosscompile", "crosscompile/qemu/port"},
	"crosscompile/qemu/port":        {},
	"crosscompile/qemu/guest":       {"crosscompile/qemu/port"},
	"crosscompile/qemu/exec":        {"crosscompile/qemu", "crosscompile/qemu/port"},
	"crosscompile/qemu/inits":       {"crosscompile/qemu", "crosscompile/qemu/port"},
	"crosscompile/qemu/powercut":    {"platform", "platform/linux", "store"},

	"crosscompile/qemu/powercut/writer": {"agent/credential", "agent/lifecycle", "crosscompile/qemu/powercut", "store"},
}

// ours maps modules to the rooms that alone may import them.
var ours = map[string][]string{
	"go.etcd.io/bbolt":                {"store"},
	"github.com/fsnotify/fsnotify":    {"agent/challenge"},
	"golang.org/x/sys":                {"platform", "crosscompile/bench"},
	"github.com/Microsoft/go-winio":   {"platform/windows"},
	"github.com/spf13/pflag":          {"agent/verb"},
	"github.com/BurntSushi/toml":      {"agent/config"},
	"golang.org/x/time":               {"agent/audit", "agent/token", "agent/authority/site", "agent/endpoint"},
	"golang.org/x/sync":               {"agent"},
	"go.step.sm/crypto":               {"agent/credential", "agent/authority", "store"},
	"github.com/coreos/go-systemd":    {"platform/linux"},
	"pgregory.net/rapid":              {},
	"go.uber.org/goleak":              {},
	"github.com/rogpeppe/go-internal": {},
	"github.com/go-jose/go-jose":      {},
}

type listed struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
}

func packages(t *testing.T, goos string) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports", "postern/...")
	cmd.Env = append(os.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var all []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func TestArrowsOnlyGoDown(t *testing.T) {
	for _, goos := range []string{"linux", "windows"} {
		for _, p := range packages(t, goos) {
			room := strings.TrimPrefix(p.ImportPath, "postern/")
			allowed, known := arrows[room]
			if !known {
				t.Errorf("%s: the room %s is not in the table of arrows", goos, room)
				continue
			}
			for _, imported := range p.Imports {
				if target, own := strings.CutPrefix(imported, "postern/"); own {
					if !slices.Contains(allowed, "*") && !slices.Contains(allowed, target) {
						t.Errorf("%s: %s imports %s: no such arrow", goos, room, target)
					}
					continue
				}
				checkModule(t, room, imported)
			}
		}
	}
}

func checkModule(t *testing.T, room, imported string) {
	t.Helper()
	if !strings.Contains(strings.SplitN(imported, "/", 2)[0], ".") {
		return // standard library
	}
	for module, rooms := range ours {
		if imported != module && !strings.HasPrefix(imported, module+"/") {
			continue
		}
		for _, r := range rooms {
			if room == r || (strings.HasPrefix(room, r+"/") && r != "agent") {
				return
			}
		}
		t.Errorf("%s imports %s, which belongs to %v", room, imported, rooms)
		return
	}
	t.Errorf("%s imports %s, which is not on the list of modules", room, imported)
}

// TestModulesAreTheAllowedOnes keeps go.mod's direct requirements to the
// modules of the table above.
func TestModulesAreTheAllowedOnes(t *testing.T) {
	f, err := os.Open("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	line := regexp.MustCompile(`^\s*(?:require\s+)?([^\s()]+\.[^\s()]+/\S+) v\S+(\s*// indirect)?`)
	direct := 0
	for s := bufio.NewScanner(f); s.Scan(); {
		m := line.FindStringSubmatch(s.Text())
		if m == nil || m[2] != "" {
			continue
		}
		direct++
		base := regexp.MustCompile(`/v\d+$`).ReplaceAllString(m[1], "")
		if _, ok := ours[base]; !ok {
			t.Errorf("go.mod requires %s directly, which is not on the list of modules", m[1])
		}
	}
	if direct == 0 {
		t.Fatal("no direct requirement found: the pattern no longer fits go.mod")
	}
}

// rule is a thing that may be said only in some places.
type rule struct {
	name    string
	pattern *regexp.Regexp
	allowed func(path string) bool
}

func under(prefixes ...string) func(string) bool {
	return func(path string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return path == p || strings.HasPrefix(path, p) })
	}
}

func nowhere(string) bool { return false }

var rules = []rule{
	{"runtime.GOOS only under platform", regexp.MustCompile(`runtime\.GOOS\b`), under("platform/", "crosscompile/")},
	{"os.Exit only in main", regexp.MustCompile(`\bos\.Exit\(`), under("agent/main.go", "crosscompile/")},
	{"log.Fatal nowhere", regexp.MustCompile(`\blog\.(Fatal|Panic)`), nowhere},
	{"no time.Now in lifecycle", regexp.MustCompile(`\btime\.Now\(`), func(p string) bool { return !strings.HasPrefix(p, "agent/lifecycle/") }},
	{"certificates are always verified", regexp.MustCompile(`Insecure` + `SkipVerify`), nowhere},
	{"one builder of clients", regexp.MustCompile(`http\.Default(Client|Transport)|http\.(Get|Post|Head|PostForm)\(`), nowhere},
	{"one literal of a client's tls.Config", regexp.MustCompile(`tls\.Config\{`), under("agent/authority/client.go", "agent/authority/site/")},
	{"an HTTP server only in endpoint, control and site", regexp.MustCompile(`http\.Server\{|http\.ListenAndServe`), under("agent/endpoint/", "agent/control/", "agent/authority/site/", "crosscompile/bench/")},
	{"no sleeping on real time", regexp.MustCompile(`\btime\.Sleep\(`), nowhere},
	{"no init functions", regexp.MustCompile(`(?m)^func init\(\)`), nowhere},
	{"no regular expressions: they weigh 0.2 MB, decisions/008", regexp.MustCompile(`"regexp"`), under("crosscompile/")},
	{"no reflection-driven templates", regexp.MustCompile(`"(text|html)/template"`), nowhere},
}

func sources(t *testing.T, visit func(path string, content []byte)) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := filepath.ToSlash(strings.TrimPrefix(path, ".."+string(filepath.Separator)))
		switch {
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != ".." || d.Name() == "testdata" || d.Name() == "node_modules" || rel == "agent/interop"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		visit(rel, content)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestForbiddenWordsStandNowhere(t *testing.T) {
	seen := 0
	sources(t, func(path string, content []byte) {
		seen++
		if strings.Contains(path, "test/") { // platformtest, authoritytest: test code in packages of its own
			return
		}
		code := withoutComments(t, path, content)
		for _, r := range rules {
			if r.pattern.Match(code) && !r.allowed(path) {
				t.Errorf("%s: %s", path, r.name)
			}
		}
	})
	if seen < 50 {
		t.Fatalf("only %d source files were read", seen)
	}
}

// withoutComments blanks comments and string literals stay: a rule speaks of code.
func withoutComments(t *testing.T, path string, content []byte) []byte {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, content, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	code := slices.Clone(content)
	for _, group := range file.Comments {
		from, to := fset.Position(group.Pos()).Offset, fset.Position(group.End()).Offset
		for i := from; i < to; i++ {
			if code[i] != '\n' {
				code[i] = ' '
			}
		}
	}
	return code
}

const (
	maxFileLines     = 400
	maxFunctionLines = 60
)

// tableLike are functions that list things: a verb's flags, a table of rules.
var tableLike = regexp.MustCompile(`^(.*Verb|verbs|root|routes|statusLines|answers)$`)

func TestRoomsStaySmall(t *testing.T) {
	sources(t, func(path string, content []byte) {
		if n := bytes.Count(content, []byte("\n")); n > maxFileLines {
			t.Errorf("%s has %d lines, at most %d fit a room", path, n, maxFileLines)
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, content, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || tableLike.MatchString(fn.Name.Name) {
				continue
			}
			if n := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line + 1; n > maxFunctionLines {
				t.Errorf("%s: %s has %d lines, at most %d fit a screen", path, fn.Name.Name, n, maxFunctionLines)
			}
		}
	})
}

// TestNoMutablePackageState allows package variables that are errors, tables
// and patterns, and refuses what a program would change while it runs.
func TestNoMutablePackageState(t *testing.T) {
	sources(t, func(path string, content []byte) {
		file, err := parser.ParseFile(token.NewFileSet(), path, content, 0)
		if err != nil {
			t.Fatal(err)
		}
		names := map[string]bool{}
		for _, d := range file.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR {
				for _, s := range g.Specs {
					for _, n := range s.(*ast.ValueSpec).Names {
						names[n.Name] = true
					}
				}
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			assign, ok := n.(*ast.AssignStmt)
			if !ok || assign.Tok == token.DEFINE {
				return true
			}
			for _, target := range assign.Lhs {
				if id, ok := target.(*ast.Ident); ok && id.Obj != nil && id.Obj.Kind == ast.Var && names[id.Name] && isPackageLevel(file, id) {
					t.Errorf("%s: the package variable %s is assigned to", path, id.Name)
				}
			}
			return true
		})
	})
}

func isPackageLevel(file *ast.File, id *ast.Ident) bool {
	spec, ok := id.Obj.Decl.(*ast.ValueSpec)
	if !ok {
		return false
	}
	for _, d := range file.Decls {
		if g, ok := d.(*ast.GenDecl); ok && slices.Contains(g.Specs, ast.Spec(spec)) {
			return true
		}
	}
	return false
}
