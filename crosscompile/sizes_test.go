package crosscompile

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestSizesAreReadAsTheyWereWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sizes.txt")
	want := Sizes{"linux-arm64": {"runtime": 700_000, Rest: 12}, "windows-amd64": {"runtime": 800_000, "golang.org/x/sys/windows": 5, Tables: 1}}
	if err := want.Write(path); err != nil {
		t.Fatal(err)
	}
	got, err := ReadSizes(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("sizes are %v, want %v", got, want)
	}
	if sum := got["windows-amd64"].Total(); sum != 800_006 {
		t.Errorf("the total is %d", sum)
	}
}

func TestDamagedSizesAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"no target": "# nothing\n", "a column too few": "package\ta b\nruntime\t1\n", "no number": "package\ta\nruntime\tmuch\n",
	} {
		path := filepath.Join(t.TempDir(), "sizes.txt")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadSizes(path); err == nil {
			t.Errorf("%s: read as %v", name, got)
		} else if !strings.Contains(err.Error(), path) {
			t.Errorf("%s: the error names no file: %v", name, err)
		}
	}
}
