package crosscompile

import (
	"debug/elf"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestSymbolsBelongToTheirPackage(t *testing.T) {
	for name, want := range map[string]string{
		"postern/agent/config.(*decoder).table":                       "postern/agent/config",
		"main.(*cli).versionVerb":                                     "main",
		"go.etcd.io/bbolt.Open.func1":                                 "go.etcd.io/bbolt",
		"gopkg.in/yaml%2ev3.Unmarshal":                                "gopkg.in/yaml.v3",
		"github.com/BurntSushi/toml.init":                             "github.com/BurntSushi/toml",
		"slices.SortFunc[go.shape.[]postern/agent/config.Config,int]": "slices",
		"type:.eq.postern/platform.Peer":                              "postern/platform",
		"go:itab.*os.File,io.Reader":                                  "os",
		"crypto/internal/fips140/nistec.p256OrdSqr":                   "crypto/internal/fips140/nistec",
		"type:*":             Types,
		"go:func.*":          Tables,
		"runtime.pclntab":    Tables,
		"_rt0_arm64_linux":   Rest,
		"type:func() string": Types,
		"runtime.mallocgc":   "runtime",
		"vendor/golang.org/x/crypto/chacha20poly1305.New": "vendor/golang.org/x/crypto/chacha20poly1305",
	} {
		if got := packageOf(name); got != want {
			t.Errorf("%s belongs to %q, want %q", name, got, want)
		}
	}
}

func TestGrownPackagesAreNamedHeaviestFirst(t *testing.T) {
	before := Weights{"a": 100, "b": 50, "c": 10}
	now := Weights{"a": 90, "b": 60, "c": 10, "d": 500}
	want := []string{"d +500 (0 before)", "b +10 (50 before)"}
	if got := Grown(before, now, 5); !slices.Equal(got, want) {
		t.Errorf("grown: %q, want %q", got, want)
	}
	if got := Grown(before, now, 1); !slices.Equal(got, want[:1]) {
		t.Errorf("grown, the first: %q", got)
	}
}

// TestWeightsMakeUpTheBinary adds up one ELF and one PE binary, whose symbols
// are read in different ways.
func TestWeightsMakeUpTheBinary(t *testing.T) {
	for _, target := range []Target{{OS: "linux", Arch: "arm64"}, {OS: "windows", Arch: "amd64"}} {
		binary, err := Build(t.Context(), "..", t.TempDir(), target, "")
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(binary)
		if err != nil {
			t.Fatal(err)
		}
		w, err := Weigh(t.Context(), "..", t.TempDir(), target, info.Size())
		if err != nil {
			t.Fatal(err)
		}
		var sum int64
		for _, bytes := range w {
			sum += bytes
		}
		if sum != info.Size() {
			t.Errorf("%s: the weights make %d bytes, the file has %d", target, sum, info.Size())
		}
		if w[Rest] > sum/4 {
			t.Errorf("%s: %d of %d bytes belong to nobody", target, w[Rest], sum)
		}
		for _, name := range []string{"runtime", "net/http", "go.etcd.io/bbolt", "postern/agent/endpoint", "main", Tables} {
			if w[name] < 10_000 {
				t.Errorf("%s: %s weighs %d bytes", target, name, w[name])
			}
		}
	}
}

// TestLinuxBinariesAreStatic: nothing of the target's system is needed to
// start, nothing is writable and executable at once, and the segments can be
// mapped with pages of 64 KB, which some arm64 kernels have.
func TestLinuxBinariesAreStatic(t *testing.T) {
	for _, target := range Targets() {
		if target.OS != "linux" || !*all && !shortly[target.String()] {
			continue
		}
		t.Run(target.String(), func(t *testing.T) {
			binary, err := Build(t.Context(), "..", t.TempDir(), target, "")
			if err != nil {
				t.Fatal(err)
			}
			for _, fault := range elfFaults(t, binary, target) {
				t.Error(fault)
			}
		})
	}
}

// TestADynamicBinaryIsSeen holds the check against a program that is none of
// ours: position independent, with an interpreter.
func TestADynamicBinaryIsSeen(t *testing.T) {
	faults := strings.Join(elfFaults(t, "/bin/sh", Target{OS: "linux", Arch: "arm64"}), "\n")
	for _, want := range []string{"interpreter", "libc", "64 KB"} {
		if !strings.Contains(faults, want) {
			t.Errorf("/bin/sh passes for static, %s was not seen: %s", want, faults)
		}
	}
}

func elfFaults(t *testing.T, path string, target Target) []string {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var faults []string
	libraries, err := f.ImportedLibraries()
	if err != nil {
		t.Fatal(err)
	}
	if len(libraries) > 0 {
		faults = append(faults, "needs the libraries "+strings.Join(libraries, " "))
	}
	page := uint64(4096)
	if target.Arch != "amd64" {
		page = 64 << 10
	}
	stack, loads, end := false, 0, uint64(0)
	for _, p := range f.Progs {
		switch p.Type {
		case elf.PT_INTERP:
			faults = append(faults, "names an interpreter")
		case elf.PT_DYNAMIC:
			faults = append(faults, "has a dynamic section")
		case elf.PT_GNU_STACK:
			if stack = true; p.Flags&elf.PF_X != 0 {
				faults = append(faults, "wants an executable stack")
			}
		case elf.PT_LOAD:
			loads++
			if p.Align%page != 0 || p.Vaddr/page*page < end {
				faults = append(faults, "a segment cannot be mapped with pages of 64 KB")
			}
			if p.Flags&elf.PF_W != 0 && p.Flags&elf.PF_X != 0 {
				faults = append(faults, "a segment is writable and executable")
			}
			end = p.Vaddr + p.Memsz
		}
	}
	if !stack || loads < 2 {
		faults = append(faults, "has no program headers for stack or segments")
	}
	return faults
}
