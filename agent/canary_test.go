//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// secretSuffix ends the names of the files in which stories keep their secrets.
const secretSuffix = ".secret"

// mayHold says which outputs are there to hand out a secret: the data that was
// asked for, on stdout.
func mayHold(s said) bool {
	if s.Stream != "stdout" {
		return false
	}
	verbs := strings.Join(s.Args, " ")
	for _, prefix := range []string{"token ", "authority claim ", "env "} {
		if strings.HasPrefix(verbs, prefix) {
			return true
		}
	}
	return strings.HasPrefix(verbs, "dev") && !slices.Contains(s.Args, "--json") // prints what to export
}

// lookForCanaries looks for every secret that a story had in its hands in all
// that any command said, on every command line, and in every file that was
// left behind, the databases included.
func lookForCanaries(t *testing.T, logs, work string) {
	t.Helper()
	secrets := canaries(t, work)
	stories, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	played, err := os.ReadDir(logs)
	if err != nil {
		t.Fatal(err)
	}
	whole := len(played) == len(stories) // not so when -run chose a few
	if whole && len(secrets) < 6 {
		t.Errorf("the stories kept only %d secrets: the canaries are not in place", len(secrets))
	}
	texts, handed := 0, map[string]bool{}
	eachSaid(t, logs, func(story string, s said) {
		texts++
		if strings.Contains(s.Text, hidden) {
			t.Errorf("%s: something of %q had to be hidden: %s", story, s.Args, s.Text)
		}
		for name, secret := range secrets {
			if strings.Contains(strings.Join(s.Args, " "), secret) {
				t.Errorf("%s: %s stands on the command line of %q", story, name, s.Args[0])
			}
			if !strings.Contains(s.Text, secret) {
				continue
			}
			if handed[name] = true; !mayHold(s) {
				t.Errorf("%s: %s stands on %s of %q", story, name, s.Stream, s.Args)
			}
		}
	})
	if whole && (texts < 100 || len(handed) < 4) {
		t.Errorf("%d texts were searched and %d secrets seen where they may be: the search does not work", texts, len(handed))
	}
	lookInFiles(t, work, secrets)
}

// canaries are the secrets of all stories, by file; of a signed token the
// signature, which stands nowhere else.
func canaries(t *testing.T, work string) map[string]string {
	t.Helper()
	secrets := map[string]string{}
	err := filepath.WalkDir(work, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, secretSuffix) {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		text := strings.TrimSpace(string(raw))
		if jwt.MatchString(text) {
			text = text[strings.LastIndexByte(text, '.')+1:]
		}
		if len(text) < 20 {
			t.Errorf("%s holds %d bytes: no canary", path, len(text))
		}
		secrets[strings.TrimPrefix(path, work)] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return secrets
}

func eachSaid(t *testing.T, logs string, visit func(story string, s said)) {
	t.Helper()
	files, err := os.ReadDir(logs)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		f, err := os.Open(filepath.Join(logs, file.Name()))
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			var s said
			if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
				t.Fatalf("%s: %v", file.Name(), err)
			}
			visit(file.Name(), s)
		}
		if err := lines.Err(); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
}

func lookInFiles(t *testing.T, work string, secrets map[string]string) {
	t.Helper()
	err := filepath.WalkDir(work, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasSuffix(path, secretSuffix) || d.Name() == "dev.json" {
			return err // dev.json is private and keeps a trial's own secret
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for name, secret := range secrets {
			if bytes.Contains(raw, []byte(secret)) {
				t.Errorf("%s stands in %s", name, strings.TrimPrefix(path, work))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
