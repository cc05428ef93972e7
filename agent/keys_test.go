package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"postern/agent/config"
)

// TestEveryKeyOfTheConfigurationIsHeard: a key that is read, checked and
// printed and then used by nobody is worse than none.
func TestEveryKeyOfTheConfigurationIsHeard(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(raw)
	}
	keys := keysOf(reflect.TypeFor[config.Config](), "")
	if len(keys) < 40 {
		t.Errorf("only %d keys were found", len(keys))
	}
	for _, key := range keys {
		section, name, _ := strings.Cut(key, ".")
		if name == "" {
			name = section
		}
		// A driver has no choice yet; a workload's and a grant's own table is
		// walked under a name of its own.
		if key != "Authority.Driver" && !strings.Contains(code.String(), "."+key) && !strings.Contains(code.String(), "w."+name) &&
			!strings.Contains(code.String(), "g."+name) && !strings.Contains(code.String(), "id."+name) && !strings.Contains(code.String(), "t."+name) {
			t.Errorf("nobody asks for %s", key)
		}
	}
}

// keysOf are the exported fields, with the section before a dot.
func keysOf(of reflect.Type, before string) (keys []string) {
	for i := range of.NumField() {
		f := of.Field(i)
		kind := f.Type
		if kind.Kind() == reflect.Slice {
			kind = kind.Elem()
		}
		switch {
		case !f.IsExported():
		case kind.Kind() == reflect.Struct:
			keys = append(keys, keysOf(kind, f.Name+".")...)
		default:
			keys = append(keys, before+f.Name)
		}
	}
	return keys
}
