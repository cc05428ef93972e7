package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/crosscompile"
)

var all = flag.Bool("all", false, "release every target twice instead of three")

// copyTree copies the sources without the repository, so that the second
// release is made in another folder and from no checkout.
func copyTree(t *testing.T, to string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", `tar -C ../.. --exclude=./.git --exclude=node_modules --exclude=./dist -cf - . | tar -C "$1" -xf -`, "copy", to)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("copy the tree: %v\n%s", err, out)
	}
}

func makeRelease(t *testing.T, root string, targets []crosscompile.Target) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "dist")
	r := release{root: root, out: out, version: "1.2.3", commit: strings.Repeat("ab", 20), time: moment, targets: targets, say: t.Output()}
	if err := r.make(t.Context()); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestReleaseIsTheSameInAnyFolder makes it twice and compares every file.
func TestReleaseIsTheSameInAnyFolder(t *testing.T) {
	targets := []crosscompile.Target{{OS: "linux", Arch: "arm64"}, {OS: "linux", Arch: "amd64"}, {OS: "windows", Arch: "amd64"}}
	if *all {
		targets = crosscompile.Targets()
	}
	elsewhere := t.TempDir()
	copyTree(t, elsewhere)
	first := makeRelease(t, "../..", targets)
	second := makeRelease(t, elsewhere, targets)
	names := checkSums(t, first)
	if len(names) != 2*len(targets) {
		t.Fatalf("%d files for %d targets: %v", len(names), len(targets), names)
	}
	for _, name := range append(names, checksums) {
		a, errA := os.ReadFile(filepath.Join(first, name))
		b, errB := os.ReadFile(filepath.Join(second, name))
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs: %x and %x, %v", name, sha256.Sum256(a), sha256.Sum256(b), errors.Join(errA, errB))
		}
	}
	here, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range targets {
		checkMembers(t, target, readArchive(t, filepath.Join(first, archiveName("1.2.3", target))), here, elsewhere)
	}
}

// checkSums reads SHA256SUMS as sha256sum -c does.
func checkSums(t *testing.T, dir string) (names []string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, checksums))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		sum, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !ok || fmt.Sprintf("%x", sha256.Sum256(content)) != sum {
			t.Errorf("checksum line %q: %v", line, err)
		}
		names = append(names, name)
	}
	return names
}

func checkMembers(t *testing.T, target crosscompile.Target, files []file, hidden ...string) {
	t.Helper()
	program, must := "postern", []string{"LICENSE", "README.md", "SECURITY.md", "THIRD-PARTY-LICENCES.txt", "completions/postern.bash", billName}
	if target.OS == "linux" {
		must = append(must, "init/systemd/postern.service")
	} else {
		program += ".exe"
	}
	for _, name := range append(must, program) {
		i := slices.IndexFunc(files, func(f file) bool { return f.name == name })
		if i < 0 || len(files[i].content) == 0 {
			t.Errorf("%s: %s is missing", target, name)
			continue
		}
		if name == program && !files[i].program {
			t.Errorf("%s: %s cannot be run", target, name)
		}
	}
	if !slices.IsSortedFunc(files, func(a, b file) int { return strings.Compare(a.name, b.name) }) {
		t.Errorf("%s: the members are not sorted", target)
	}
	for _, f := range files {
		for _, word := range hidden {
			if bytes.Contains(f.content, []byte(word)) {
				t.Errorf("%s: %s names the folder %s", target, f.name, word)
			}
		}
	}
}

// readArchive returns the members and checks what the builder must not leave:
// other times, other owners, names.
func readArchive(t *testing.T, path string) (files []file) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Ext(path) == ".zip" {
		z, err := zip.NewReader(bytes.NewReader(raw), int64(len(raw)))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range z.File {
			r, err := m.Open()
			if err != nil {
				t.Fatal(err)
			}
			content, err := io.ReadAll(r)
			if err != nil || !m.Modified.Equal(moment) || m.Comment != "" {
				t.Errorf("%s: time %s, comment %q, %v", m.Name, m.Modified, m.Comment, err)
			}
			files = append(files, file{m.Name, content, m.Mode()&0o111 != 0})
		}
		return files
	}
	packed, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if packed.Name != "" || !packed.ModTime.IsZero() {
		t.Errorf("gzip header: %+v", packed.Header)
	}
	for r := tar.NewReader(packed); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" || !h.ModTime.Equal(moment) || h.PAXRecords != nil || h.Mode != 0o755 && h.Mode != 0o644 {
			t.Errorf("%s: uid %d %q, gid %d %q, %s, mode %o", h.Name, h.Uid, h.Uname, h.Gid, h.Gname, h.ModTime, h.Mode)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			files = append(files, file{h.Name, content, h.Mode == 0o755})
		}
	}
}

// repository makes a git repository with one commit.
func repository(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "a"}, {"-c", "user.name=x", "-c", "user.email=x@y", "commit", "-q", "-m", "one"}} {
		cmd := exec.Command("git", append([]string{"-C", dir}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_COMMITTER_DATE=2026-09-21T14:13:20Z")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	return dir
}

func TestReleaseNamesTheCommitAndTakesItsTime(t *testing.T) {
	dir := repository(t)
	commit, at, err := origin(t.Context(), dir, "", "")
	if err != nil || len(commit) != 40 || !at.Equal(moment) {
		t.Errorf("origin is %q, %s, %v", commit, at, err)
	}
	if _, at, err := origin(t.Context(), dir, "", "1700000000"); err != nil || !at.Equal(time.Unix(1700000000, 0)) {
		t.Errorf("SOURCE_DATE_EPOCH gives %s, %v", at, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("2"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ root, commit, epoch, want string }{
		"a changed tree":         {dir, "", "", "differ from the commit"},
		"no repository":          {t.TempDir(), "", "1700000000", "no git repository"},
		"no time":                {t.TempDir(), "abc", "", "SOURCE_DATE_EPOCH"},
		"a time that is none":    {dir, "abc", "soon", "SOURCE_DATE_EPOCH"},
		"a time zip cannot hold": {dir, "abc", "0", "1980"},
	} {
		if _, _, err := origin(t.Context(), test.root, test.commit, test.epoch); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

func TestReleaseGoesOnlyIntoAnEmptyFolderUnderAVersion(t *testing.T) {
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "old"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ out, version, want string }{
		"what is left of another": {full, "1.2.3", "not empty"},
		"a version with v":        {t.TempDir(), "v1.2.3", "not of the form"},
		"a path as version":       {t.TempDir(), "1.2.3/../x", "not of the form"},
		"no version":              {t.TempDir(), "", "not of the form"},
	} {
		r := release{root: "../..", out: test.out, version: test.version}
		if err := r.make(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

func TestSizesNameModulesAndPackages(t *testing.T) {
	var out bytes.Buffer
	if err := reportSizes(t.Context(), &out, "../..", []crosscompile.Target{{OS: "linux", Arch: "arm64", Budget: 9 << 20}}, 16<<10); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"linux-arm64 ", "headroom", "  std\n", "  postern\n", "  postern/agent/endpoint\n", "  go.etcd.io/bbolt\n", "  net/http\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, out.String())
		}
	}
}

func TestUnknownTargetsAreNamed(t *testing.T) {
	if _, err := choose("linux-arm64,linux-mips"); err == nil || !strings.Contains(err.Error(), "linux-mips") {
		t.Errorf("choose: %v", err)
	}
	if list, err := choose("windows-amd64,linux-armv7"); err != nil || len(list) != 2 || list[1].ARM != "7" {
		t.Errorf("choose: %v, %v", list, err)
	}
}
