package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestEveryFaultHasATestOfItsName: a row of firmware-notes/faults.md is a
// promise, and TestST9… or TestUP4ToUP8… keeps it. "not built" is no promise.
func TestEveryFaultHasATestOfItsName(t *testing.T) {
	text, err := os.ReadFile("../firmware-notes/faults.md")
	if err != nil {
		t.Fatal(err)
	}
	named := faultsInTestNames(t)
	rows := regexp.MustCompile(`(?m)^\| ([A-Z]{2}\d+) \| .* \| (.*) \|$`).FindAllStringSubmatch(string(text), -1)
	if len(rows) < 70 {
		t.Fatalf("only %d faults were read", len(rows))
	}
	known := map[string]bool{}
	for _, row := range rows {
		known[row[1]] = true
		if !named[row[1]] && row[2] != "not built" {
			t.Errorf("%s has no test of its name", row[1])
		}
	}
	for id := range named {
		if !known[id] {
			t.Errorf("a test is named after %s, which is no fault of the catalogue", id)
		}
	}
}

// faultsInTestNames reads the names of all tests of the module.
func faultsInTestNames(t *testing.T) map[string]bool {
	t.Helper()
	named := map[string]bool{}
	name := regexp.MustCompile(`^Test(ST|ID|UP|CK|EP|OS)(\d+)(?:To(?:ST|ID|UP|CK|EP|OS)(\d+))?(?:_|[A-Z])`)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			m := name.FindStringSubmatch(f.Name.Name)
			if m == nil {
				continue
			}
			first, _ := strconv.Atoi(m[2]) // digits
			last := first
			if m[3] != "" {
				last, _ = strconv.Atoi(m[3])
			}
			for n := first; n <= last; n++ {
				named[m[1]+strconv.Itoa(n)] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return named
}
