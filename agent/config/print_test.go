package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"postern/agent/config"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := "testdata/" + name
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("differs from %s (go test ./agent/config -update rewrites it):\n%s", file, got)
	}
}

func printed(t *testing.T, c config.Config, defaults bool) string {
	t.Helper()
	var b bytes.Buffer
	if err := c.Print(&b, defaults); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// same compares what two configurations say, whatever it came from.
func same(a, b config.Config) bool {
	va, vb := a.Values(), b.Values()
	if len(va) != len(vb) {
		return false
	}
	for i := range va {
		if va[i].Key != vb[i].Key || va[i].Text != vb[i].Text {
			return false
		}
	}
	return true
}

func TestDefaultFileNamesEveryKeyAndChangesNothing(t *testing.T) {
	text := printed(t, config.Config{}, true)
	golden(t, "defaults.toml", text)
	if !same(mustLoad(t, text), mustLoad(t, "")) {
		t.Error("the default file is not the default")
	}
}

// What a person uncomments in the default file must be right.
func TestEveryCommentedKeyOfTheDefaultFileIsAccepted(t *testing.T) {
	text := printed(t, config.Config{}, true)
	all := regexp.MustCompile(`(?m)^#([a-z_0-9]+ = |\[)`).ReplaceAllString(text, "$1")
	c := mustLoad(t, all)
	if len(c.Workloads) != 1 || len(c.Grants) != 1 || len(c.Identities) != 1 {
		t.Errorf("%d workloads, %d grants, %d identities; want one each", len(c.Workloads), len(c.Grants), len(c.Identities))
	}
	c.Workloads, c.Grants, c.Identities = nil, nil, nil
	if !same(c, mustLoad(t, "")) {
		t.Error("a commented key does not stand with its default")
	}
}

func TestEffectiveConfigurationShowsOriginsAndLoadsAgain(t *testing.T) {
	c := mustLoad(t, everything, config.Override{Key: "log_level", Value: "error", Flag: "--quiet"})
	text := printed(t, c, false)
	golden(t, "effective.toml", text)
	again := mustLoad(t, text)
	if !same(c, again) {
		t.Error("what was printed says something else")
	}
	for i, want := range c.Values() {
		if got := again.Values()[i]; got.Origin.Line == 0 {
			t.Errorf("%s: has no line in its own print", want.Key)
		}
	}
}

// TestEffectiveConfigurationIsData keeps the document that scripts read.
func TestEffectiveConfigurationIsData(t *testing.T) {
	c := mustLoad(t, everything, config.Override{Key: "log_level", Value: "error", Flag: "--quiet"})
	text, err := json.MarshalIndent(c.Document(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "effective.json", string(text)+"\n")
	for _, plain := range []config.Config{c, mustLoad(t, "")} {
		if text, err := json.Marshal(plain.Document()); err != nil || strings.Contains(string(text), "null") {
			t.Errorf("%v: something is neither a value nor absent: %s", err, text)
		}
	}
}

func TestPrintReportsAWriterThatFails(t *testing.T) {
	full := errors.New("no space left on device")
	for _, defaults := range []bool{true, false} {
		if err := mustLoad(t, "").Print(failing{full}, defaults); !errors.Is(err, full) {
			t.Errorf("got %v", err)
		}
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestSizesAreWrittenInTheShortestExactForm(t *testing.T) {
	for size, want := range map[config.Size]string{
		0: "0", 1: "1", 1023: "1023", 1024: "1KiB", 28 << 20: "28MiB", 1 << 30: "1GiB", 1<<30 + 1024: "1048577KiB",
	} {
		if got := size.String(); got != want {
			t.Errorf("%d: got %s, want %s", int64(size), got, want)
		}
	}
}

func TestTheExampleOfTheTestsNamesEveryKey(t *testing.T) {
	c := mustLoad(t, everything)
	var missing []string
	for _, v := range c.Values() {
		if v.Origin == (config.Origin{}) && !strings.Contains(v.Key, "[") {
			missing = append(missing, v.Key)
		}
	}
	// The only ones that have but one value, or exclude another.
	want := []string{"authority.driver", "token.preset", "token.tenant", "token.cloud", "key.protection"}
	if !reflect.DeepEqual(missing, want) {
		t.Errorf("not in the example: %v, want %v", missing, want)
	}
}
