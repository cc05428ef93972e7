package crosscompile

import (
	"bytes"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

var (
	all     = flag.Bool("all", false, "build every target instead of the short list")
	record  = flag.Bool("record", false, "write the sizes that were measured into sizes.txt")
	sizes   = "sizes.txt"
	growth  = 1.02 // a binary may grow by 2 % before somebody has to say so
	shortly = map[string]bool{"linux-arm64": true, "linux-amd64": true, "windows-amd64": true}
)

func targets() []Target {
	var list []Target
	for _, t := range Targets() {
		if *all || *record || shortly[t.String()] {
			list = append(list, t)
		}
	}
	return list
}

// TestBinariesStayWithinTheirBudget builds the targets stripped and compares
// them with the published budget and with sizes.txt. What has grown is named.
func TestBinariesStayWithinTheirBudget(t *testing.T) {
	known, err := ReadSizes(sizes)
	if err != nil && !*record {
		t.Fatal(err)
	}
	measured := Sizes{}
	for _, target := range targets() {
		binary, err := Build(t.Context(), "..", t.TempDir(), target, "")
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(binary)
		if err != nil {
			t.Fatal(err)
		}
		size, before := info.Size(), known[target.String()]
		t.Logf("%-16s %5.2f MB of %.1f MB", target, float64(size)/mb, float64(target.Budget)/mb)
		if size > target.Budget {
			t.Errorf("%s is %d bytes, its budget is %d", target, size, target.Budget)
		}
		limit := float64(before.Total()) * growth
		if !*record && float64(size) <= limit && size <= target.Budget {
			continue
		}
		weights, err := Weigh(t.Context(), "..", t.TempDir(), target, size)
		if err != nil {
			t.Fatal(err)
		}
		measured[target.String()] = weights
		if !*record {
			t.Errorf("%s is %d bytes after %d; what grew most:\n%s\nif it must be: go test ./crosscompile -run Budget -record",
				target, size, before.Total(), strings.Join(Grown(before, weights, 12), "\n"))
		}
	}
	if *record {
		if err := measured.Write(sizes); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEveryTargetHasItsSizesWrittenDown: a target without them could grow unseen.
func TestEveryTargetHasItsSizesWrittenDown(t *testing.T) {
	known, err := ReadSizes(sizes)
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range Targets() {
		w := known[target.String()]
		if w.Total() < mb || w["runtime"] == 0 || w["postern/agent/endpoint"] == 0 {
			t.Errorf("%s: %s knows %d bytes in %d packages", target, sizes, w.Total(), len(w))
		}
		if w.Total() > target.Budget {
			t.Errorf("%s: %s has %d bytes written down, more than the budget of %d", target, sizes, w.Total(), target.Budget)
		}
	}
}

func digest(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// copyTree copies the tracked sources, so that the second build stands in another folder.
func copyTree(t *testing.T, to string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", `tar -C .. --exclude=./.git --exclude=node_modules --exclude=./dist -cf - . | tar -C "$1" -xf -`, "copy", to)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("copy the tree: %v\n%s", err, out)
	}
}

// TestBuildIsReproducible builds twice, in two folders, the second time with
// an empty build cache, and compares the bytes. The short form does it for one
// target, since the second build compiles the standard library again.
func TestBuildIsReproducible(t *testing.T) {
	elsewhere := t.TempDir()
	copyTree(t, elsewhere)
	list := targets()
	if !*all {
		list = list[:1]
	}
	var sums [2][]string
	for i, root := range []string{"..", elsewhere} {
		if i == 1 {
			t.Setenv("GOCACHE", filepath.Join(elsewhere, ".cache"))
		}
		for _, target := range list {
			binary, err := Build(t.Context(), root, t.TempDir(), target, "", "-buildvcs=false")
			if err != nil {
				t.Fatal(err)
			}
			sums[i] = append(sums[i], digest(t, binary))
		}
	}
	for i, target := range list {
		if sums[0][i] != sums[1][i] {
			t.Errorf("%s: two builds differ: %s and %s", target, sums[0][i], sums[1][i])
		}
	}
}

// TestDeadCodeIsLeftOut fails when something calls methods by name through
// reflection, which makes the linker keep every exported method.
func TestDeadCodeIsLeftOut(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-tags", Tags, "-ldflags", "-dumpdep", "-o", filepath.Join(t.TempDir(), "postern"), "../agent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+runtime.GOARCH)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out[:min(len(out), 2000)])
	}
	for _, line := range bytes.Split(out, []byte("\n")) {
		if bytes.Contains(line, []byte("<ReflectMethod>")) {
			t.Errorf("defeats dead-code elimination: %s", line)
		}
	}
	if !bytes.Contains(out, []byte("main.main")) {
		t.Fatal("the linker printed no dependencies: this guard sees nothing")
	}
}
